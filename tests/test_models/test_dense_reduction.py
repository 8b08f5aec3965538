"""Maps of vision transformers of other libraries with fewer tokens, as detectors and segmenters take them."""

import copy
import inspect
import pickle

import pytest
import torch
from mmengine.registry import DefaultScope

from mmstvit.layers.steps import METHODS, TRAINED, ReducingStep
from mmstvit.models import STViT, reduce_, restore_
from mmstvit.registry import MODELS

ARCH = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=48)
IMAGE = torch.randn(2, 3, 27, 50, generator=torch.Generator().manual_seed(0))  # padded to 7 x 13 patches
DROPPED = dict(keep_rate=0.5, fuse_last=True, blocks=[1])
# Of each method that gives maps, the options.
DENSE = {
    'ToMe': dict(keep_rate=0.8),
    'ATM': dict(keep_rate=0.8),
    'PiToMe': dict(keep_rate=0.8),
    'DPCKNN': dict(keep_rate=0.6),
    'ToMeSD': dict(keep_rate=0.3),
    'Expedite': dict(keep_rate=0.3),
    'TopK': DROPPED,
    'ATS': DROPPED,
    'RepresentationShift': DROPPED,
    'Random': dict(keep_rate=0.5, fuse_last=True, blocks=[0, 2]),
    'GridPool': dict(keep_rate=0.3),
}
# Backbones of a config, with maps of two blocks at any size of images.
BACKBONES = {
    'mmpretrain': dict(
        type='mmpretrain.VisionTransformer',
        arch=ARCH,
        img_size=32,
        patch_size=4,
        out_type='featmap',
    ),
    'timm': dict(
        type='mmpretrain.TIMMBackbone',
        model_name='vit_tiny_patch16_224',
        img_size=32,
        patch_size=4,
        depth=4,
        embed_dim=24,
        num_heads=3,
        mlp_ratio=2,
        features_only=True,
        dynamic_img_size=True,
        dynamic_img_pad=True,
    ),
    'mmseg': dict(
        type='mmseg.VisionTransformer',
        embed_dims=24,
        num_layers=4,
        num_heads=3,
        mlp_ratio=2,
        img_size=32,
        patch_size=4,
        norm_cfg=dict(type='LN', eps=1e-6),
    ),
    'mmstvit': dict(
        type='mmstvit.STViT',
        arch=ARCH,
        img_size=32,
        patch_size=4,
        with_cls_token=True,
        out_type='featmap',
        reduce=None,
        final_norm=False,
    ),
}


def config_of(library, out_indices=(1, 3)):
    for package in dict(timm=('timm', 'mmpretrain'), mmstvit=()).get(library, (library,)):
        pytest.importorskip(package)
    return dict(BACKBONES[library], out_indices=list(out_indices))


def build(config):
    torch.manual_seed(0)
    model = MODELS.build(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1) if parameter.dim() > 1 else None
    model.eval()  # mmpretrain's backbones return nothing here
    return model


def reduced(config, method, **options):
    return build(dict(type='mmstvit.Reduced', backbone=config, reduce=dict(type=method, **options)))


def test_all_methods_that_give_maps_are_tested():
    assert set(DENSE) == set(METHODS) - {*TRAINED, 'EViT'}  # the fused token of EViT is no mean of patches


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('library', BACKBONES)
def test_in_the_toolboxes(library, scope):
    """From a config of each, with nothing reduced and after restore_: the plain backbone to the last bit."""
    pytest.importorskip(scope)
    registry = pytest.importorskip(f'{scope}.registry').MODELS
    config = config_of(library)
    plain = build(config)
    with DefaultScope.overwrite_default_scope(scope):
        idle = registry.build(dict(type='mmstvit.Reduced', backbone=config, reduce=dict(type='ToMe', r=0)))
        less = registry.build(
            dict(type='mmstvit.Reduced', backbone=config, reduce=dict(type='Expedite', keep_rate=0.3))
        )
    expected = plain(IMAGE)
    assert [out.shape for out in expected] == [(2, 24, 7, 13)] * 2
    for model in (idle, less):
        model.eval()
        assert plain.state_dict().keys() == model.state_dict().keys()
        model.load_state_dict(plain.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(idle(IMAGE), expected, strict=True))
    outs = less(IMAGE)
    assert [out.shape for out in outs] == [(2, 24, 7, 13)] * 2 and not torch.allclose(outs[1], expected[1], atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(restore_(less)(IMAGE), expected, strict=True))


@pytest.mark.parametrize('library', ['mmpretrain', 'timm', 'mmseg'])
@pytest.mark.parametrize('method', DENSE)
def test_maps_of_several_blocks_are_those_of_our_own_network(method, library):
    """On a grid that is not the network's; each image as alone; each parameter is trained."""
    config = config_of(library)
    if library == 'mmpretrain':
        config['final_norm'] = False
    model, own = reduced(config, method, **DENSE[method]), reduced(config_of('mmstvit'), method, **DENSE[method])
    vit = model.timm_model.model if library == 'timm' else model
    blocks = vit.blocks if library == 'timm' else vit.layers
    for ours, theirs in zip(own.encoder.layers, blocks, strict=True):
        ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    grids = []

    def keep(block, args, kwargs, output):
        tokens = output if isinstance(output, tuple) else getattr(output, 'tokens', None)
        grids.append(tokens and tokens.layout.grid)

    first = {}
    handles = [
        blocks[0].register_forward_pre_hook(lambda block, args: first.update(theirs=args[0])),
        *(block.register_forward_hook(keep, with_kwargs=True) for block in blocks),
    ]
    outs = model(IMAGE)
    for handle in handles:
        handle.remove()
    assert [tuple(grid) for grid in grids[:3]] == [(7, 13)] * 3
    own.drop_after_pos.register_forward_hook(lambda module, args, output: first['theirs'])
    for out, expected in zip(outs, own(IMAGE), strict=True):
        assert out.shape == (2, 24, 7, 13) and torch.allclose(out, expected, atol=1e-5)
    alone = [torch.cat(maps) for maps in zip(*(model(image[None]) for image in IMAGE), strict=True)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(alone, outs, strict=True))
    sum(out.square().sum() for out in outs).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize('library', BACKBONES)
@pytest.mark.parametrize('method', ['ToMe', 'ToMeSD', 'Expedite', 'GridPool'])
def test_patches_that_are_there_four_times_change_nothing(method, library):
    """The maps of both blocks, where what merges is equal."""
    quarter = dict(keep_rate=[0.5, 0.5, 1, 1]) if method == 'ToMe' else dict(keep_rate=[0.25, 1, 1, 1])
    config = config_of(library)
    plain, model = build(config), reduced(config, method, **quarter)
    for parameters in (plain, model):
        for name, parameter in parameters.named_parameters():
            if 'pos_embed' in name:
                torch.nn.init.zeros_(parameter)
    cells = torch.randn(2, 3, 3, 5, 4, 4, generator=torch.Generator().manual_seed(1))  # (B, 3, rows, columns, 4, 4)
    image = cells.repeat_interleave(2, 2).repeat_interleave(2, 3).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    with torch.no_grad():
        for out, expected in zip(model(image), plain(image), strict=True):
            assert out.shape == (2, 24, 6, 10) and torch.allclose(out, expected, atol=1e-4)
    assert any(isinstance(step, ReducingStep) for step in model.reduction.transformer.steps)


def test_export_and_copies():
    """Without scatter; on another size than that of the network; copied with what runs it."""
    model = reduced(config_of('mmpretrain'), 'Expedite', keep_rate=0.3)
    expected = model(IMAGE)[1]
    exported = torch.export.export(model, (IMAGE,))
    names = {str(node.target) for node in exported.graph.nodes if node.op == 'call_function'}
    assert not any('scatter' in name for name in names)
    assert torch.allclose(exported.module()(IMAGE)[1], expected, atol=1e-5)
    copied = copy.deepcopy(model)
    copied.reduction.keep_rate = 1
    assert torch.equal(model(IMAGE)[1], expected) and not torch.allclose(copied(IMAGE)[1], expected, atol=1e-3)


@pytest.mark.parametrize('library', ['mmpretrain', 'timm', 'mmseg'])
def test_images_are_given_by_the_name_that_the_library_gives_them(library):
    """By keyword, to an exporter, and in a copy."""
    plain = build(config_of(library))
    model = reduced(config_of(library), 'Expedite', keep_rate=0.3)
    if library == 'timm':  # the module that is reduced, inside of mmpretrain's wrapper
        plain, model = plain.timm_model, model.timm_model
    assert inspect.signature(model.forward) == inspect.signature(plain.forward)
    name = next(iter(inspect.signature(plain.forward).parameters))
    expected = model(IMAGE)
    for run in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(a, b) for a, b in zip(run(**{name: IMAGE}), expected, strict=True))
    exported = torch.export.export(model, (), {name: IMAGE})
    assert exported.graph_signature.user_inputs == (name,)


def test_compiled_and_recomputed():
    """Maps of timm's network in one graph; gradients with activations that are computed twice."""
    torch._dynamo.reset()
    model = reduced(config_of('timm'), 'Expedite', keep_rate=0.3)
    outs, compiled = model(IMAGE), torch.compile(model, backend='eager', fullgraph=True)(IMAGE)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(outs, compiled, strict=True))
    sum(out.square().sum() for out in outs).backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.timm_model.model.set_grad_checkpointing(True)
    sum(out.square().sum() for out in model(IMAGE)).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('library', ['mmpretrain', 'timm', 'mmseg'])
def test_methods_that_drop_are_refused_for_maps(library):
    with pytest.raises(ValueError, match='the method drops tokens'):
        reduce_(build(config_of(library)), 'topk', keep_rate=0.5)


def test_dropped_patches_of_an_earlier_block_have_their_last_values():
    """Maps from before the last block, where dropped tokens are kept aside."""
    model = build(dict(config_of('mmstvit', (1, 2, 3)), reduce=dict(type='Random', **DROPPED)))
    assert isinstance(model, STViT)
    before, after, _ = model(IMAGE)
    assert (before.abs().sum(dim=1) > 0).all()
    stayed = (before == after).all(dim=1)
    assert 0.3 < stayed.float().mean() < 0.7
