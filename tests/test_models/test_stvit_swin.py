import gc
from functools import partial

import pytest
import torch
from published_files import reference

from mmstvit.converters import convert_published_state_dict
from mmstvit.layers.published_layout import PublishedWindows
from mmstvit.layers.window_layout import PaddedWindows
from mmstvit.measure.complexity import count
from mmstvit.measure.memory import peak_bytes
from mmstvit.models import STViTR, STViTSwin

SMALL = dict(embed_dims=8, depths=(2, 2, 6, 2), num_heads=(1, 1, 2, 2))


def build(kind=STViTR, **options):
    model = kind(**{'arch': SMALL, 'layer_scale_init_value': 0.5, **options})
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.dim() > 1 else 0.5)
    return model.eval()


def plain(**options):
    return build(STViTSwin, semantic_size=None, layer_scale_init_value=0.0, **options)


IMAGE = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('size', [(224, 224), (256, 320), (230, 301)])
def test_plain_swin_is_that_of_mmpretrain(size):
    models = pytest.importorskip('mmpretrain.models')
    arch = dict(embed_dims=12, depths=[2, 2, 4, 2], num_heads=[1, 2, 3, 4])
    theirs = models.SwinTransformer(arch=arch)
    theirs.eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = STViTSwin(arch=arch, semantic_size=None).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, *size)
    assert torch.allclose(ours(image)[0], theirs(image)[0], atol=1e-4)


@pytest.mark.parametrize(
    'name,options', [('cls', dict(shortcut=False)), ('det', dict(dense=True, key_mask='published'))]
)
def test_published_prototype(name, options):
    """Outputs of the authors' code for small random networks, where such a file is at hand."""
    state, image, outputs = reference(f'stvit_r_{name}')
    model = STViTR(arch=dict(embed_dims=8, depths=(2, 2, 18, 2), num_heads=(1, 1, 2, 4)), **options).eval()
    converted = convert_published_state_dict(state)
    assert model.load_state_dict(converted, strict=False).missing_keys == []
    outs = model(image)
    if name == 'cls':
        pooled = outs[0].mean((2, 3))
        outs = (pooled, pooled @ converted['head.fc.weight'].T + converted['head.fc.bias'])
    for out, expected in zip(outs, outputs, strict=True):
        assert (out - expected).abs().max() <= 1e-5


@pytest.mark.parametrize('arch,parameters', [('small', 49_625_518), ('base', 87_812_336)])
def test_parameters_of_the_published_layout(arch, parameters):
    with torch.device('meta'):
        model = STViTR(arch)
    width = model.arch_zoo[arch]['embed_dims'] * 8
    assert sum(p.numel() for p in model.parameters()) + 1000 * (width + 1) == parameters


def multiply_adds(model, *size) -> int:
    return count(model.eval(), torch.zeros(1, 3, *size)).multiply_adds


def test_multiply_adds():
    with torch.device('meta'):  # nothing is computed
        assert multiply_adds(STViTR('small'), 224, 224) < 5.826e9  # as published by the authors, head included
        assert multiply_adds(STViTR('small', dense=True), 800, 1216) <= 125e9
        dense = multiply_adds(STViTSwin('tiny', semantic_size=None), 224, 224)
        assert dense == pytest.approx(4.49e9, rel=0.01)
        assert multiply_adds(STViTSwin('tiny'), 224, 224) < 0.75 * dense


@pytest.mark.parametrize(
    'size',
    [(64, 64), (97, 131), (224, 224), (61, 300), (33, 33), (7, 300), (1, 1), (421, 797), (800, 1333)],
)
@pytest.mark.parametrize(
    'make',
    [plain, lambda: build(STViTSwin), build, lambda: build(dense=True), lambda: build(dense=True, key_mask=None)],
)
def test_any_size_and_the_shapes_of_the_maps(make, size):
    model = make()
    outs = model(torch.randn(2, 3, *size))
    assert len(outs) == len(model.out_indices)
    for i, out in zip(model.out_indices, outs, strict=True):
        assert out.isfinite().all()
        if not (type(model) is STViTSwin and model.spec.hide_padding and i == 3):
            rows, columns = (-(-s // 2 ** (i + 2)) for s in size)
            assert out.shape == (2, 8 * 2**i, rows, columns)


def test_semantic_maps_go_on_in_the_last_stage():
    """2 x 2 windows of 4 x 4 semantic tokens become 8 x 8 tokens, and 4 x 4 after patch merging."""
    assert build(STViTSwin)(IMAGE)[0].shape == (1, 64, 4, 4)
    assert build(STViTSwin, semantic_size=3)(IMAGE)[0].shape == (1, 64, 3, 3)


class OneMore(PaddedWindows):
    @property
    def num_windows(self):
        return tuple(n + 1 for n in super().num_windows)


class OneMoreOfZeros(OneMore, PublishedWindows):
    pass


@pytest.mark.parametrize('pooling', ['max', 'avg'])
@pytest.mark.parametrize('size', [(130, 203), (224, 224), (65, 449)])
def test_padding_inside_changes_nothing_with_the_exact_mask(size, pooling):
    """One more row and column of windows in every stage gives the same maps; without the mask it does not."""
    image = torch.randn(1, 3, *size)
    exact, open_ = (build(dense=True, key_mask=mask, pooling=pooling) for mask in ('exact', None))
    outs = {model: model(image) for model in (exact, open_)}
    exact.layout = partial(OneMore, exact.spec)
    open_.layout = partial(OneMoreOfZeros, open_.spec, hide=False)
    for a, b in zip(outs[exact], exact(image), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert not torch.allclose(outs[open_][3], open_(image)[3], atol=1e-4)


def test_masks_matter():
    image = torch.randn(1, 3, 130, 203)
    outs = {mask: build(dense=True, key_mask=mask)(image)[2] for mask in ('exact', 'published', None)}
    assert not torch.allclose(outs['exact'], outs['published'], atol=1e-2)
    assert not torch.allclose(outs['exact'], outs[None], atol=1e-2)
    assert not torch.allclose(outs['published'], outs[None], atol=1e-3)


@pytest.mark.parametrize('dense', [False, True])
def test_both_forms_take_the_same_weights(dense):
    source = build(use_global=not dense, dense=dense)
    other = STViTR(SMALL, dense=not dense, out_indices=source.out_indices)
    missing = other.load_state_dict(source.state_dict(), strict=False).missing_keys
    assert missing == []


@pytest.mark.parametrize(
    'kind,base,option',
    [
        (STViTR, {}, dict(semantic_size=4)),
        (STViTR, {}, dict(shortcut=False)),
        (STViTR, {}, dict(use_global=True)),
        (STViTR, {}, dict(relative_pos=True)),
        (STViTR, {}, dict(conv_pos=True)),
        (STViTR, dict(dense=True), dict(relative_pos=True)),
        (STViTR, dict(dense=True), dict(shortcut=False)),
        (STViTR, {}, dict(dense=True, out_indices=(3,))),
        (STViTR, {}, dict(pooling='avg')),
        (STViTR, {}, dict(stem='patch')),
        (STViTR, {}, dict(window_size=6)),
        (STViTR, {}, dict(qkv_bias=False)),
        (STViTR, {}, dict(mlp_ratio=2)),
        (STViTR, {}, dict(layer_scale_init_value=0.0)),
        (STViTR, {}, dict(out_indices=(2, 3))),
        (STViTSwin, {}, dict(semantic_size=2)),
        (STViTSwin, {}, dict(stgm_layer=1)),
        (STViTSwin, {}, dict(use_global=False)),
        (STViTSwin, {}, dict(pooling='avg')),
        (STViTSwin, {}, dict(stem='conv')),
    ],
)
def test_every_option_takes_effect(kind, base, option):
    before, after = build(kind, **base)(IMAGE), build(kind, **{**base, **option})(IMAGE)
    same_shapes = [out.shape for out in before] == [out.shape for out in after]
    assert not same_shapes or not torch.allclose(before[-1], after[-1], atol=1e-4)


@pytest.mark.parametrize('option', [dict(drop_rate=0.3), dict(attn_drop_rate=0.3), dict(drop_path_rate=0.5)])
def test_dropout_options_act_in_training(option):
    model = build(STViTSwin, **{'drop_path_rate': 0.0, **option})
    image = IMAGE.expand(2, -1, -1, -1)
    assert torch.equal(model(image)[0], model(image)[0])
    model.train()
    assert not torch.equal(model(image)[0], model(image)[0])


@pytest.mark.parametrize(
    'kind,options,message',
    [
        (STViTR, dict(arch='tiny-ish'), "arch='tiny-ish' is unknown"),
        (STViTR, dict(arch=dict(embed_dims=8)), 'needs just the keys'),
        (STViTR, dict(arch={**SMALL, 'depths': (2, 2, 5, 2)}), 'no multiple of the 6 of a unit'),
        (STViTR, dict(semantic_size=8), 'between 1 and window_size=7'),
        (STViTR, dict(key_mask='right'), "key_mask='right' is unknown"),
        (STViTR, dict(key_mask='published'), 'has no effect with dense=False'),
        (STViTR, dict(dense=True, use_global=True), 'use_global=True is for dense=False'),
        (STViTR, dict(stem='resnet'), "stem='resnet' is unknown"),
        (STViTR, dict(out_indices=(4,)), 'must name some of the 4 stages'),
        (STViTSwin, dict(out_indices=(3, 2)), 'ascending'),
        (STViTSwin, dict(out_indices=(3, 3)), 'ascending'),
        (STViTR, dict(frozen_stages=5), 'frozen_stages=5 must be between -1 and 4'),
        (STViTSwin, dict(stgm_layer=5), 'must be between 0 and 4'),
        (STViTSwin, dict(semantic_size=None, stgm_layer=2), 'stgm_layer=2 has no effect'),
        (STViTSwin, dict(semantic_size=None, pooling='avg'), "pooling='avg' has no effect"),
        (STViTSwin, dict(pooling='min'), "pooling='min' is unknown"),
    ],
)
def test_wrong_options_say_what_is_wrong(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**{'arch': SMALL, **options})


def test_relative_positions_of_all_tokens_are_for_224():
    with pytest.raises(ValueError, match='relative_pos=True is made for .* as at 224 px'):
        build(relative_pos=True)(torch.randn(1, 3, 320, 320))


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(use_global=True, relative_pos=True, conv_pos=True),
        dict(dense=True),
        dict(dense=True, key_mask='published'),
    ],
)
def test_gradients_reach_every_parameter_and_checkpointing_changes_none(options):
    image = torch.randn(2, 3, 224 if not options.get('dense') else 150, 224)
    grads = []
    for with_cp in (False, True):
        model = build(**options, with_cp=with_cp).train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0
        torch.manual_seed(3)
        for layer in model.modules():
            if hasattr(layer, 'drop_prob'):
                layer.drop_prob = 0.0
        sum(out.square().mean() for out in model(image)).backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    assert [name for name, grad in grads[0].items() if grad is None or not grad.abs().sum() > 0] == []
    for name, grad in grads[0].items():
        assert torch.allclose(grad, grads[1][name], atol=1e-5, rtol=1e-3), name


def test_frozen_stages_stay_as_they_are():
    model = build(dense=True, frozen_stages=2).train()
    frozen = {name.split('.')[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {'patch_embed', 'stages', 'norm0', 'norm1'}
    before = model.patch_embed.layers[1].running_mean.clone()
    model(torch.randn(2, 3, 64, 64))
    assert torch.equal(model.patch_embed.layers[1].running_mean, before)
    assert model.stages[2].training and not model.stages[1].training


def live_bytes() -> int:
    """Of all tensors that were made since the last ``gc.freeze``, and can be reached."""
    gc.collect()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if is_dense(t)}
    return sum(storages.values())


def is_dense(thing) -> bool:
    return type(thing) is torch.Tensor and thing.layout is torch.strided and thing.device.type == 'cpu'


def test_memory_does_not_grow_over_many_sizes():
    """Each size is a new one of about the same area; what the first ones left makes room for the last."""
    model = build(dense=True)
    seen = []
    gc.collect()
    gc.freeze()  # what is there need not be looked through each time
    with torch.no_grad():
        for i in range(16):
            model(torch.zeros(1, 3, 353 + 3 * i, 601 - 5 * i))
            seen.append(live_bytes())
    assert max(seen[8:]) <= 1.25 * max(seen[:8])  # all kept would be twice as much
    assert seen[-1] - seen[0] < 4 * 16e6  # three sizes are kept


def test_peak_memory_is_no_higher_than_that_of_swin_in_mmdet():
    pytest.importorskip('mmdet')
    swin = pytest.importorskip('mmdet.models.backbones.swin')
    theirs = swin.SwinTransformer(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), convert_weights=False)
    theirs.eval()
    image = torch.zeros(1, 3, 224, 320)
    ours = STViTR('tiny', dense=True).eval()
    with torch.no_grad():
        ours(image)  # its plans are kept
        assert 1e7 < peak_bytes(lambda: ours(image)) <= peak_bytes(lambda: theirs(image))


def test_inference_mode_first_and_training_after():
    model = build(dense=True)
    image = torch.randn(1, 3, 72, 100)
    with torch.inference_mode():
        model(image)
    sum(out.sum() for out in model.train()(image)).backward()


def test_layer_depths_are_those_of_swin():
    """As mmpretrain counts them; learned centres belong to the layer of their step."""
    swin = pytest.importorskip('mmpretrain.models').SwinTransformer('tiny')
    with torch.device('meta'):
        plain, semantic = STViTSwin('tiny', semantic_size=None), STViTSwin('tiny')
    for model in (plain, semantic):
        for i, j in ((0, 1), (2, 0), (2, 5), (3, 1)):
            ours = model.get_layer_depth(f'backbone.stages.{i}.encoder.layers.{j}.norm1.weight', 'backbone.')
            assert ours == swin.get_layer_depth(f'backbone.stages.{i}.blocks.{j}.norm1.weight', 'backbone.')
        for name in ('backbone.patch_embed.projection.weight', 'backbone.norm3.weight', 'head.fc.weight'):
            assert model.get_layer_depth(name, 'backbone.') == swin.get_layer_depth(name, 'backbone.')
        merging = next(name for name, _ in model.named_parameters() if 'stages.1.downsample' in name)
        assert model.get_layer_depth(merging) == swin.get_layer_depth('stages.1.downsample.reduction.weight')
    (centers,) = (name for name, _ in semantic.named_parameters() if name.endswith('global_centers'))
    assert centers.startswith('stages.2.encoder.steps.3') and semantic.get_layer_depth(centers) == (2 + 2 + 3 + 1, 14)
