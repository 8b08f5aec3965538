"""Token reduction of models that exist already."""

import copy
import io
import pickle

import pytest
import torch
from mmengine.config import Config
from vits import METHODS

from mmstvit import get_model
from mmstvit.layers.layout import WholeImage
from mmstvit.layers.steps import METHODS as STEP_METHODS
from mmstvit.layers.steps import TRAINED, SelfAttention
from mmstvit.layers.steps.schedule import multiply_adds, tokens_per_block
from mmstvit.models import STViT, T2TViT, reduce_, restore_
from mmstvit.models.reduction import methods_for

timm = pytest.importorskip('timm')

SMALL = dict(img_size=32, patch_size=4, embed_dim=24, depth=4, num_heads=3, mlp_ratio=2, num_classes=5)
TIMM = {
    'class token': {},
    'registers': dict(reg_tokens=4),
    'mean pooling': dict(class_token=False, global_pool='avg'),
    'mean pooling beside a class token': dict(global_pool='avg'),
    'attention pooling': dict(class_token=False, global_pool='map'),
    'LayerScale': dict(init_values=0.1),
    'normalised queries and keys': dict(qk_norm=True),
    'norms of outputs': dict(scale_attn_norm=True, scale_mlp_norm=True),
    'norm before': dict(pre_norm=True),
    'stochastic depth': dict(drop_path_rate=0.2),
}
IMAGE = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build_timm(options):
    torch.manual_seed(0)
    model = timm.models.vision_transformer.VisionTransformer(**SMALL, **options)
    for parameter in model.parameters():  # heads begin with zeros
        torch.nn.init.normal_(parameter, std=0.1) if parameter.dim() > 1 else None
    return model.eval()


# Of timm's Eva: EVA-02, DINOv3, Perception Encoder, and its ViTs with rotary positions.
EVA = {
    'EVA-02': dict(use_rot_pos_emb=True, ref_feat_shape=4, swiglu_mlp=True, scale_mlp=True, qkv_fused=False),
    'DINOv3': dict(
        use_rot_pos_emb=True,
        rope_type='dinov3',
        rope_rotate_half=True,
        use_abs_pos_emb=False,
        num_reg_tokens=4,
        init_values=0.1,
        qkv_bias=False,
        dynamic_img_size=True,
    ),
    'Perception Encoder': dict(use_rot_pos_emb=True, attn_type='rope', global_pool='map', use_fc_norm=False),
    'rotary, class token': dict(use_rot_pos_emb=True, scale_attn_inner=True, qk_norm=True, global_pool='token'),
    'no rotary positions': dict(global_pool='token'),
}


def build_eva(options):
    torch.manual_seed(0)
    model = timm.models.eva.Eva(**SMALL, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1) if parameter.dim() > 1 else None
    return model.eval()


def build_mmpretrain(options):
    pytest.importorskip('mmpretrain')
    from mmpretrain.models import VisionTransformer

    arch = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=48)
    torch.manual_seed(0)
    model = VisionTransformer(arch, img_size=32, patch_size=4, **options)
    model.eval()
    return model


MMPRETRAIN = {
    'class token': {},
    'mean': dict(out_type='avg_featmap', final_norm=False),
    'map': dict(out_type='featmap', with_cls_token=False),
    'all tokens': dict(out_type='raw'),
    'LayerScale': dict(layer_scale_init_value=0.1),
    'SwiGLU': dict(layer_cfgs=dict(ffn_type='swiglu_fused')),
}


OWN_ARCH = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=48)


def build_own(options):
    torch.manual_seed(0)
    return STViT(OWN_ARCH, img_size=32, patch_size=4, reduce=None, **options).eval()


OWN = {
    'mean': {},
    'class token': dict(with_cls_token=True, out_type='cls_token'),
    'map': dict(out_type='featmap'),
}


def build_hugging_face(kind):
    transformers = pytest.importorskip('transformers')
    size = dict(hidden_size=24, num_hidden_layers=4, num_attention_heads=3, image_size=32, patch_size=4)
    hidden = {} if kind.startswith('Dinov2') else dict(intermediate_size=48)
    vision = 'Vision' if kind in ('CLIP', 'Siglip') else ''
    config = getattr(transformers, f'{kind}{vision}Config')(**size, **hidden)
    torch.manual_seed(0)
    model = getattr(transformers, f'{kind}{vision}Model')(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1) if parameter.dim() > 1 else None
    return model


HUGGING_FACE = ('ViT', 'DeiT', 'Dinov2', 'Dinov2WithRegisters', 'DINOv3ViT', 'CLIP', 'Siglip')
MODELS = [
    *(pytest.param(build_hugging_face, kind, id=f'transformers: {kind}') for kind in HUGGING_FACE),
    *(pytest.param(build_timm, options, id=f'timm: {name}') for name, options in TIMM.items()),
    *(pytest.param(build_eva, options, id=f'timm: {name}') for name, options in EVA.items()),
    *(pytest.param(build_mmpretrain, options, id=f'mmpretrain: {name}') for name, options in MMPRETRAIN.items()),
    *(pytest.param(build_own, options, id=f'mmstvit: {name}') for name, options in OWN.items()),
]
every_model = pytest.mark.parametrize('build, options', MODELS)


def out(model, image=IMAGE):
    with torch.no_grad():
        output = model(image)
    if hasattr(output, 'last_hidden_state'):
        return output.last_hidden_state
    return output[0] if isinstance(output, tuple) else output


@every_model
def test_nothing_reduced_and_restored(build, options):
    model = build(options)
    before, keys = out(model), list(model.state_dict())
    assert torch.equal(out(reduce_(model, 'tome', r=0)), before)
    model.reduction.r = 5
    reduced = out(model)
    assert reduced.shape == before.shape and not torch.allclose(reduced, before, atol=1e-5)
    assert list(model.state_dict()) == keys
    assert torch.equal(out(restore_(model)), before) and not hasattr(model, 'reduction')


def test_patches_get_values_where_they_are_read():
    """Class tokens need none; that takes a third of the operations which merging adds."""
    counts = []

    def counted(model, norm):
        reduce_(model, 'tome', r=8)
        model.get_submodule(norm).register_forward_pre_hook(lambda module, args: counts.append(args[0].shape[1]))
        return model

    for model in (build_timm({}), build_eva(EVA['no rotary positions'])):
        logits = out(counted(model, 'norm'))
        torch.testing.assert_close(model.forward_head(model.forward_features(IMAGE)), logits)
        model.reset_classifier(5, global_pool='avg')
        out(model)
        assert counts == [33, 65, 65]
        counts.clear()
    out(counted(build_mmpretrain({}), 'ln1'))
    out(counted(build_mmpretrain(dict(out_type='raw')), 'ln1'))
    assert counts == [33, 65]
    transformers = pytest.importorskip('transformers')
    bare = counted(build_hugging_face('ViT'), 'layernorm')
    classifier = transformers.ViTForImageClassification(bare.config).eval()
    classifier.vit.load_state_dict(bare.state_dict(), strict=False)
    with torch.no_grad():
        logits = counted(classifier, 'vit.layernorm')(IMAGE).logits
        torch.testing.assert_close(logits, classifier.classifier(out(bare)[:, 0]))
    assert counts == [33, 65, 33, 65]


@every_model
def test_blocks_are_run_as_their_library_does(build, options):
    """Equal but for rounding where the only pairs that merge are of equal tokens."""
    model = build(options)
    image = IMAGE.unflatten(3, (8, 4))[:, :, :, ::2].repeat_interleave(2, dim=3).flatten(3)  # each patch twice
    for name, parameter in model.named_parameters():
        if 'pos' in name:
            torch.nn.init.zeros_(parameter)
    rotations = [module for name, module in model.named_modules() if name in ('rope', 'rope_embeddings')]
    for module in rotations:  # by nothing
        module.register_forward_hook(lambda module, args, out: (torch.ones_like(out[0]), torch.zeros_like(out[1])))
        module.get_embed = lambda shape=None: torch.cat((torch.zeros(64, 8), torch.ones(64, 8)), dim=1)
    plain = out(model, image)
    reduced = out(reduce_(model, 'tome', r=[32, 0, 0, 0]), image)
    assert torch.allclose(reduced, plain, atol=1e-5)


def test_all_methods_that_need_no_training_are_tested():
    assert set(METHODS) == set(STEP_METHODS) - set(TRAINED)


@pytest.mark.parametrize('build', [build_timm, build_mmpretrain], ids=['timm', 'mmpretrain'])
@pytest.mark.parametrize('method', METHODS)
def test_every_method_as_in_our_own_network(method, build):
    """With the same weights a model of another library gives what the encoder of ours does."""
    own = build_own(dict(with_cls_token=True, out_type='cls_token'))
    blocks, model = own.encoder.layers, build({})
    other = model.blocks if build is build_timm else model.layers
    for ours, theirs in zip(blocks, other, strict=True):
        ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    reduce_(model, method, **METHODS[method])
    reduce_(own, method, **METHODS[method])
    x = torch.randn(2, 65, 24, generator=torch.Generator().manual_seed(1))
    layout = WholeImage((8, 8), x.device, 1)
    with torch.no_grad():
        expected, _ = own.encoder(x, layout)
        for block in other:
            x = block(x)
    assert torch.allclose(x[:, 0], expected.x[:, 0], atol=1e-5)


def test_one_amount_takes_the_place_of_another():
    model = reduce_(build_timm({}), 'tome', r=8)
    model.reduction.budget = 0.6
    assert model.reduction.options == dict(budget=0.6)
    network, steps = model.reduction.transformer.network, [block.forward.args[1] for block in model.blocks]
    dense = sum(multiply_adds(network, [SelfAttention()] * 4))
    share = sum(multiply_adds(network, steps)) / dense
    assert 0.5 < share <= 0.6 and model.reduction.share == share
    assert model.reduction.tokens == tokens_per_block(network, steps)
    assert f'budget=0.6: 64 -> {model.reduction.tokens[-1]} tokens, {share:.0%}' in repr(model.reduction)
    assert out(model).shape == (3, 5)


def test_maps_need_all_patches():
    options = dict(out_type='featmap', with_cls_token=True)
    with pytest.raises(ValueError, match='the method drops tokens'):
        reduce_(build_mmpretrain(options), 'topk', keep_rate=0.7)
    assert out(reduce_(build_mmpretrain(options), 'topk', keep_rate=0.7, fuse_last=True, blocks=[1])).shape == (
        3,
        24,
        8,
        8,
    )


def test_fewer_tokens_reach_the_later_blocks():
    model, counts = reduce_(build_timm({}), 'ToMe', r=8), []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda mlp, args, output: counts.append(output.shape[1]))
    assert out(model).shape == (3, 5)
    assert counts == [65 - 8 * i for i in range(1, 5)]


def test_copies_pickles_and_state_dicts():
    model = reduce_(build_timm({}), 'tome', r=8)
    expected = out(model)
    copied = copy.deepcopy(model)
    copied.reduction.r = 0
    assert torch.equal(out(model), expected) and not torch.equal(out(copied), expected)
    assert torch.equal(out(pickle.loads(pickle.dumps(model))), expected)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = reduce_(build_timm({}), 'tome', r=8)
    with torch.no_grad():
        other.head.weight.zero_()
    other.load_state_dict(torch.load(file))
    assert torch.equal(out(other), expected)


def test_training_reaches_every_parameter():
    for checkpointing in (False, True):
        model = reduce_(build_timm(dict(drop_path_rate=0.1, attn_drop_rate=0.1)), 'tome', r=8).train()
        model.set_grad_checkpointing(checkpointing)
        model(IMAGE).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_data_parallel(tmp_path):
    """Two steps under DistributedDataParallel, with the gradients of the model alone and no parameter left out."""
    model = reduce_(build_timm({}), 'tome', r=8).train()
    model(IMAGE).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        for _ in range(2):  # the second would raise if a parameter had got no gradient in the first
            model.zero_grad()
            parallel(IMAGE).square().sum().backward()
        assert parallel.module.reduction.tokens == [56, 48, 40, 32]
    finally:
        torch.distributed.destroy_process_group()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5)


def test_one_graph_and_half_precision():
    torch._dynamo.reset()
    model = reduce_(build_timm({}), 'tome', r=8)
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    assert torch.allclose(out(compiled), out(model), atol=1e-5)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert out(model).isfinite().all()


@pytest.mark.parametrize('method', ['ToMe', 'PiToMe', 'ATM', 'DPCKNN', 'GridPool', 'Expedite'])
def test_large_values_in_half_precision(method):
    """All tokens are alike and a few are left, so that most are merged; sums of them would leave the range."""
    model = build_timm({})
    with torch.no_grad():
        model.pos_embed.zero_()[..., 3] = 4000.0
    image, amount = torch.zeros(1, 3, 32, 32), dict(keep_rate=0.5)
    amount = amount if method in ('ToMe', 'PiToMe', 'ATM') else dict(blocks=(1,), keep_rate=0.05)
    with torch.autocast('cpu', dtype=torch.float16):
        assert out(reduce_(copy.deepcopy(model), method, **amount), image).isfinite().all()
    half = out(reduce_(copy.deepcopy(model).half(), method, **amount), image.half())
    assert half.dtype == torch.float16 and half.isfinite().all()
    torch.testing.assert_close(half.float(), out(reduce_(model, method, **amount), image), rtol=0.02, atol=0.02)


@pytest.mark.parametrize('method', [name for name in METHODS if name not in ('ATS', 'TopK', 'EViT')])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_the_type_stays(method, dtype):
    model = STViT(OWN_ARCH, img_size=32, patch_size=4, reduce=dict(type=method, **METHODS[method])).eval().to(dtype)
    assert out(model, IMAGE.to(dtype)).dtype == dtype


@pytest.mark.parametrize('method', METHODS)
def test_on_the_meta_device(method):
    """Where networks are counted."""
    options = {} if method not in ('ToMeSD', 'Expedite') else dict(out_type='featmap')
    model = build_own(dict(with_cls_token=True, **options)).to('meta')
    reduced = reduce_(model, method, **METHODS[method])
    assert out(reduced, IMAGE.to('meta')).is_meta


def test_a_part_that_is_reduced():
    model = torch.nn.Sequential(build_timm({}))
    expected = out(model)
    reduce_(model[0], 'tome', r=8)
    with pytest.raises(ValueError, match='reduced already'):
        reduce_(model, 'evit', keep_rate=0.5)
    assert torch.equal(out(restore_(model)), expected) and not hasattr(model[0], 'reduction')


class Callers(timm.models.vision_transformer.VisionTransformer):
    """As users write it."""

    def forward_features(self, x):
        return super().forward_features(x)


def test_classifiers_that_pool_patches_beside_the_class_token():
    """Which hold no hidden tokens; no others may be refused."""
    transformers = pytest.importorskip('transformers')
    size = dict(hidden_size=24, num_hidden_layers=4, num_attention_heads=3, image_size=32, patch_size=4)
    for name, hides in (('CLIP', True), ('Dinov2', True), ('Dinov2WithRegisters', True), ('ViT', False)):
        options = {} if name.startswith('Dinov2') else dict(intermediate_size=48)
        config = getattr(transformers, f'{name}Config')
        config = config(vision_config={**size, **options}) if name == 'CLIP' else config(**size, **options)
        model = getattr(transformers, f'{name}ForImageClassification')(config)
        assert ('ATS' not in methods_for(model)) == hides and 'EViT' in methods_for(model)


@pytest.mark.parametrize('kind', ['ViT', 'CLIP', 'DINOv3ViT', pytest.param('Dinov2', marks=pytest.mark.long)])
def test_what_transformers_adds(kind):
    """Hidden states are those of the reduced tokens; recomputed activations, one graph and exported masks work."""
    model = reduce_(build_hugging_face(kind), 'tome', r=8)
    expected = out(model)
    states = model(IMAGE, output_hidden_states=True).hidden_states
    assert [state.shape[1] for state in states[:4]] == [65, 57, 49, 41]
    with pytest.raises(ValueError, match='output_attentions does not go with token reduction'):
        model(IMAGE, output_attentions=True)
    torch._dynamo.reset()
    assert torch.allclose(out(torch.compile(model, backend='eager', fullgraph=True)), expected, atol=1e-5)
    assert torch.allclose(out(torch.export.export(model, (IMAGE,)).module()), expected, atol=1e-5)
    model.gradient_checkpointing_enable()
    model.train()(IMAGE).last_hidden_state.square().sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if 'encoder' in name or 'layers.' in name)


SIZES = {
    'DINOv3ViT': {},
    'Dinov2': {},
    'ViT': dict(interpolate_pos_encoding=True),
    'CLIP': dict(interpolate_pos_encoding=True),
    'Siglip': dict(interpolate_pos_encoding=True),
}


@pytest.mark.parametrize('kind', SIZES)
def test_the_grid_of_images_of_other_sizes(kind):
    """Also where there are as many patches as in an image of the network's size."""
    model, grids = reduce_(build_hugging_face(kind), 'tome', r=8), []
    model.reduction.steps[0].register_forward_hook(lambda step, args, tokens: grids.append(tokens.layout.grid))
    for height, width in ((16, 64), (32, 32), (40, 24)):
        model(torch.randn(1, 3, height, width), **SIZES[kind])
    assert grids == [(4, 16), (8, 8), (10, 6)]
    before = out(restore_(model))
    assert torch.equal(out(build_hugging_face(kind)), before)


@pytest.mark.parametrize('build, options', [(build_timm, {}), (build_eva, EVA['EVA-02'])], ids=['ViT', 'EVA-02'])
def test_export_without_scatter_of_any_batch(build, options):
    model = reduce_(build(options), 'tome', r=8)
    batch = {0: torch.export.Dim('batch', min=1, max=16)}
    exported = torch.export.export(model, (IMAGE[:2],), dynamic_shapes=(batch,))
    names = {str(node.target) for node in exported.graph.nodes if node.op == 'call_function'}
    assert not any('scatter' in name for name in names)
    assert torch.allclose(exported.module()(IMAGE), out(model), atol=1e-5)


def test_image_alone_and_in_a_batch():
    model = reduce_(build_timm({}), 'tome', r=8)
    assert torch.allclose(torch.cat([out(model, image[None]) for image in IMAGE]), out(model), atol=1e-5)


@pytest.mark.parametrize('backbone', ['VisionTransformer', 'TIMMBackbone', 'mmstvit.STViT'])
def test_in_a_config(backbone, tmp_path):
    """Its checkpoints are those of the backbone alone."""
    pytest.importorskip('mmpretrain')
    arch = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=48)
    options = {
        'VisionTransformer': dict(arch=arch, img_size=32, patch_size=4),
        'TIMMBackbone': dict(model_name='vit_tiny_patch16_224', img_size=32, patch_size=4, depth=4),
        'mmstvit.STViT': dict(arch=arch, img_size=32, patch_size=4, reduce=None),
    }[backbone]
    plain = dict(type=backbone, **options)
    reduced = dict(type='mmstvit.Reduced', backbone=plain, reduce=dict(type='ToMe', r=8))
    head = dict(type='VisionTransformerClsHead', num_classes=3, in_channels=24)
    models = [
        get_model(Config(dict(default_scope='mmpretrain', model=dict(type='ImageClassifier', backbone=b, head=head))))
        for b in (plain, reduced)
    ]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()
    models[1].load_state_dict(models[0].state_dict())
    features = [out(model.backbone) for model in models]
    assert features[0].shape == features[1].shape and not torch.allclose(*features, atol=1e-5)
    assert torch.equal(out(restore_(models[1].backbone)), features[0])


@pytest.mark.parametrize(
    'act, line',
    [
        (
            lambda: reduce_(torch.nn.Linear(2, 2), 'tome', r=1),
            'Linear cannot be reduced, only .*: it has none of these',
        ),
        (lambda: reduce_(build_timm({}), 'nonsense'), "method='nonsense' is unknown, choose from"),
        (lambda: reduce_(build_timm({}), 'stgm', layer=1), "method='stgm' is unknown, choose from"),
        (lambda: reduce_(build_timm({}), 'tome', rate=1), "unexpected keyword argument 'rate'"),
        (lambda: reduce_(build_timm({}), 'tome', r=-1), 'r=-1 must be'),
        (lambda: reduce_(reduce_(build_timm({}), 'tome', r=1), 'tome', r=1), 'reduced already'),
        (lambda: restore_(build_timm({})), 'not reduced'),
        (
            lambda: reduce_(build_eva(dict(use_rot_pos_emb=True, rope_type='mixed')), 'tome', r=1),
            'rotary positions that each layer learns',
        ),
        (
            lambda: reduce_(build_eva(dict(use_post_norm=True)), 'tome', r=1),
            'EvaBlockPostNorm .* cannot be reduced',
        ),
        (
            lambda: reduce_(timm.create_model('naflexvit_base_patch16_siglip'), 'tome', r=1),
            'NaFlexVit cannot be reduced, only .*',
        ),
        (lambda: reduce_(build_hugging_face('Beit'), 'tome', r=1), 'BeitModel has layers of the type BeitLayer'),
        (lambda: reduce_(timm.create_model('swin_tiny_patch4_window7_224'), 'tome', r=1), 'it has .*bias and stages'),
        (lambda: reduce_(build_timm(dict(global_pool='avg')), 'ats', keep_rate=0.5), 'ATS hides tokens'),
        (lambda: reduce_(Callers(**SMALL), 'tome', r=1), r'Callers.forward_features calls super\(\)'),
        (
            lambda: reduce_(build_timm({}), 'tome', r=1).get_intermediate_layers(IMAGE),
            'forward_intermediates does not go with token reduction: .*features_only=True',
        ),
        (
            lambda: reduce_(T2TViT(OWN_ARCH, 64, design=dict(type='dense', growth=6, groups=(4,))), 'tome', r=1),
            'T2TViT with .*dense.* cannot be reduced',
        ),
        (lambda: reduce_(build_timm(dict(attn_layer='diff')), 'tome', r=1), 'with DiffAttention cannot be reduced'),
    ],
)
def test_refused_in_a_line(act, line):
    with pytest.raises(ValueError, match=line) as error:
        act()
    assert '\n' not in str(error.value)


def test_wrong_setting_leaves_the_model_as_it_was():
    model = reduce_(build_timm({}), 'tome', r=8)
    expected = out(model)
    with pytest.raises(ValueError, match='r=-3'):
        model.reduction.r = -3
    with pytest.raises(ValueError, match='nonsense'):
        model.reduction.nonsense = 1
    assert model.reduction.r == 8 and torch.equal(out(model), expected)
    with pytest.raises(AttributeError, match="no option 'budget', it has"):
        model.reduction.budget  # noqa: B018
    with pytest.raises(ValueError, match='attn_mask does not go with token reduction'):
        model(IMAGE, attn_mask=torch.zeros(65, 65))


@pytest.mark.parametrize('kind', ['EVA-02', 'DINOv3', 'Perception Encoder'])
def test_rotary_positions_follow_the_tokens_that_are_kept(kind):
    """The library's own blocks, given the rotations of the kept patches, do the same."""
    model = reduce_(build_eva(EVA[kind]), 'random', keep_rate=0.5, blocks=[1], fuse_last=False)
    prefix, (first, second, *others) = model.num_prefix_tokens, model.blocks
    trace = []
    reduced = out(model)
    step = model.reduction.steps[1]
    step.register_forward_hook(lambda step, args, tokens: trace.append(tokens.trace[-1]))
    assert torch.equal(out(model), reduced)
    rows = trace[0].unmerge(torch.eye(32 + prefix).expand(3, -1, -1))  # (B, N, M)
    kept = rows.transpose(1, 2).argmax(dim=-1)  # (B, M)
    restore_(model)
    with torch.no_grad():
        x, rope = model._pos_embed(model.patch_embed(IMAGE))
        x = second_input = first(model.norm_pre(x), rope=rope)
        attended = second.attn(second.norm1(x), rope=rope)
        x = second_input + (attended if second.gamma_1 is None else second.gamma_1 * attended)
        x = x.gather(1, kept[..., None].expand(-1, -1, 24))
        mlp = second.mlp(second.norm2(x))
        x = x + (mlp if second.gamma_2 is None else second.gamma_2 * mlp)
        rope = rope[kept[:, prefix:] - prefix][:, None]
        for block in others:
            x = block(x, rope=rope)
        expected = model.forward_head(model.norm(x))
    assert torch.allclose(reduced, expected, atol=1e-5)
