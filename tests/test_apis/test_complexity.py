"""Multiply-adds against formulas that are written out here from the papers' geometry, and the parts of networks."""

import math

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmstvit.measure.complexity import count
from mmstvit.models import STViT, STViTR, STViTSwin, STViTSwin3D, T2TViT


def on_meta(build, *size, **options):
    """Count a network of these sizes, without computing anything."""
    # Networks of others compute something when they are built.
    with torch.device('meta' if build.__module__.startswith('mmstvit.') else 'cpu'):
        model = build(**options)
    model.eval()
    return count(model.to('meta'), torch.empty(1, 3, *size, device='meta'))


def layer(c: int, queries: int, keys: int | None = None, context: int | None = None, mlp: float = 4) -> int:
    """A transformer layer: projections of queries and of what they see, the output's, logits, values, and the MLP.

    Args:
        c: width.
        queries: tokens.
        keys: keys that each query sees; by default all queries.
        context: tokens that are projected to keys and values; by default as many as the queries.
    """
    keys = queries if keys is None else keys
    context = queries if context is None else context
    return round(2 * queries * c * c + 2 * context * c * c + 2 * queries * keys * c + 2 * mlp * queries * c * c)


def deit(c: int, depth: int, patches: int, extra: int = 0) -> int:
    return patches * 3 * 16 * 16 * c + depth * layer(c, patches + extra)


def windows(c: int, grid: tuple[int, ...], window: tuple[int, ...]) -> int:
    """A layer of Swin. Its windows pad the grid: queries, keys and values see the padding, the rest does not."""
    tokens, padded = math.prod(grid), math.prod(math.ceil(g / w) * w for g, w in zip(grid, window))
    return 3 * padded * c * c + 2 * padded * math.prod(window) * c + tokens * c * c + 8 * tokens * c * c


def merge(c: int, grid: tuple[int, ...]) -> int:
    """Four tokens joined and brought to half the width, on the smaller grid."""
    return math.prod(grid) * 4 * c * 2 * c


def swin(c: int, depths: tuple[int, ...], size: tuple[int, ...], window: tuple[int, ...] = (7, 7)) -> int:
    """Plain Swin or Video Swin: patches of 4 x 4 (and 2 frames), windows of padded grids, merging in space."""
    *time, height, width = size
    grid = (*(math.ceil(t / 2) for t in time), math.ceil(height / 4), math.ceil(width / 4))
    total = math.prod(grid) * 3 * 16 * (2 if time else 1) * c
    for stage, depth in enumerate(depths):
        total += depth * windows(c, grid, window)
        if stage < len(depths) - 1:
            grid = (*grid[:-2], math.ceil(grid[-2] / 2), math.ceil(grid[-1] / 2))
            total += merge(c, grid)
            c *= 2
    return total


@pytest.mark.parametrize(
    'arch,c,dense_g,ours_g', [('tiny', 192, 1.25, 0.52), ('small', 384, 4.58, 1.91), ('base', 768, 17.5, 7.3)]
)
def test_deit_and_stvit(arch, c, dense_g, ours_g):
    dense = on_meta(STViT, 224, 224, arch=arch, semantic_grid=None)
    assert dense.multiply_adds == deit(c, 12, 196)
    assert dense.flops == 2 * dense.multiply_adds
    ours = on_meta(STViT, 224, 224, arch=arch)
    assert dense.multiply_adds / 1e9 == pytest.approx(dense_g, rel=0.01)
    assert ours.multiply_adds / 1e9 == pytest.approx(ours_g, rel=0.01)
    assert ours.multiply_adds == deit(c, 4, 196) + 2 * layer(c, 16, 212, 212) + 6 * layer(c, 16)


@pytest.mark.parametrize('arch,c,depths', [('tiny', 96, (2, 2, 6, 2)), ('base', 128, (2, 2, 18, 2))])
@pytest.mark.parametrize('size', [(224, 224), (200, 301)])
def test_swin(arch, c, depths, size):
    assert on_meta(STViTSwin, *size, arch=arch, semantic_size=None).multiply_adds == swin(c, depths, size)


def test_stvit_on_swin():
    """At 224 px: 14 x 14 tokens in stage 3, 8 x 8 semantic ones in 2 x 2 windows, 4 x 4 in stage 4."""
    c = 96
    formula = swin(c, (2, 2, 2), (224, 224))
    formula += 2 * layer(4 * c, 64, 64 + 196, 64 + 196) + layer(4 * c, 64, 16) + layer(4 * c, 64)
    formula += merge(4 * c, (4, 4)) + 2 * layer(8 * c, 16)
    assert on_meta(STViTSwin, 224, 224).multiply_adds == formula


@pytest.mark.parametrize('dense', [False, True])
def test_stvit_r(dense):
    """At 224 px the larger windows of the dense form cover the image: its keys are all tokens, but the pooled ones."""
    c, depth = 96, 18
    stem = 112**2 * 3 * 9 * c // 2 + 56**2 * 9 * c // 2 * c
    others = swin(c, (2, 2, depth, 2), (224, 224)) - 56**2 * 3 * 16 * c - depth * windows(4 * c, (14, 14), (7, 7))
    keys = 196 if dense else 36 + 196
    unit = windows(4 * c, (14, 14), (7, 7)) + 2 * layer(4 * c, 36, keys, keys)
    unit += layer(4 * c, 36, 9) + layer(4 * c, 36) + layer(4 * c, 196, 36, 36)
    assert on_meta(STViTR, 224, 224, arch='small', dense=dense).multiply_adds == stem + others + 3 * unit


def test_t2t_vit():
    inside = sum(
        # One head of width 64 whose MLP is as wide as it.
        n * joined * 3 * 64 + 2 * n * n * 64 + n * 64 * 64 + 2 * n * 64 * 64
        for n, joined in ((56 * 56, 3 * 49), (28 * 28, 64 * 9))
    )
    formula = inside + 196 * 64 * 9 * 384 + 14 * layer(384, 197, mlp=3)
    counted = on_meta(T2TViT, 224, 224, arch='t-14').multiply_adds
    assert counted == formula
    assert counted == pytest.approx(6.1e9, rel=0.01)


def test_t2t_vit_by_performer():
    m = 32  # random features
    inside = sum(
        # Features of queries and keys, their sums of values and of ones, and those seen by each query.
        n * joined * 3 * 64 + 2 * n * 64 * m + 2 * n * 64 * m + n * m + n * 64 * 64 + 2 * n * 64 * 64
        for n, joined in ((56 * 56, 3 * 49), (28 * 28, 64 * 9))
    )
    formula = inside + 196 * 64 * 9 * 256 + 7 * layer(256, 197, mlp=2)
    assert on_meta(T2TViT, 224, 224, arch='7').multiply_adds == formula


VIDEO = (32, 224, 224)


def test_video_swin():
    formula = swin(96, (2, 2, 6, 2), VIDEO, (8, 7, 7))
    assert on_meta(STViTSwin3D, *VIDEO, semantic_size=None).multiply_adds == formula


def test_stvit_on_video_swin():
    """32 frames: 16 x 14 x 14 tokens in stage 3, 8 x 8 x 8 semantic ones in 2 x 2 x 2 windows, 8 x 4 x 4 in stage 4."""
    c, grid, semantic = 96, 16 * 14 * 14, 8**3
    formula = swin(c, (2, 2, 2), VIDEO, (8, 7, 7))
    formula += 2 * layer(4 * c, semantic, semantic + grid, semantic + grid)
    formula += layer(4 * c, semantic, 4**3) + layer(4 * c, semantic)
    formula += merge(4 * c, (8, 4, 4)) + 2 * windows(8 * c, (8, 4, 4), (8, 4, 4))
    assert on_meta(STViTSwin3D, *VIDEO).multiply_adds == formula


def test_the_toolboxes_networks():
    """Whoever wrote the network, and whether its attention is fused or written out."""
    from mmpretrain.models.backbones import SwinTransformer, VisionTransformer

    timm = pytest.importorskip('timm')
    assert on_meta(VisionTransformer, 224, 224, arch='deit-small').multiply_adds == deit(384, 12, 196, extra=1)
    assert on_meta(SwinTransformer, 224, 224, arch='tiny').multiply_adds == swin(96, (2, 2, 6, 2), (224, 224))
    for fused in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('timm.layers.config._USE_FUSED_ATTN', 2 if fused else 0)
            model = timm.create_model('deit_small_patch16_224', num_classes=0, img_size=64)
        assert {m.fused_attn for m in model.modules() if hasattr(m, 'fused_attn')} == {fused}
        for device in ('cpu', 'meta'):
            counted = count(model.to(device), torch.empty(1, 3, 64, 64, device=device))
            assert counted.multiply_adds == deit(384, 12, 16, extra=1)


def test_video_swin_of_mmaction2():
    swin3d = pytest.importorskip('mmaction.models.backbones.swin')
    counted = on_meta(swin3d.SwinTransformer3D, 32, 224, 224, arch='tiny', pretrained2d=False)
    assert counted.multiply_adds == swin(96, (2, 2, 6, 2), VIDEO, (8, 7, 7))


TINY = dict(embed_dims=16, num_layers=6, num_heads=2, feedforward_channels=64)


def tiny(**options) -> STViT:
    return STViT(**{**dict(arch=TINY, img_size=32, patch_size=4, semantic_grid=(3, 3), stgm_layer=2), **options})


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('build', [tiny, lambda: STViTR(dict(embed_dims=8, depths=(1, 1, 6, 1), num_heads=(1,) * 4))])
def test_the_same_by_every_kernel_and_on_every_device(build, training):
    """Fused with and without bias, written out, with dropout, and on the meta device."""
    model, images = build().train(training), torch.randn(2, 3, 32, 32)
    fused = count(model, images)
    with sdpa_kernel(SDPBackend.MATH):
        assert count(model, images) == fused
    for module in model.modules():
        if hasattr(module, 'attn_drop_rate'):
            module.attn_drop_rate = 0.1
    assert count(model, images) == fused
    assert count(model.to('meta'), images.to('meta')) == fused


def test_a_whole_batch_and_the_tokens_of_one_image():
    one, two = count(tiny().eval(), torch.randn(1, 3, 32, 32)), count(tiny().eval(), torch.randn(2, 3, 32, 32))
    assert two.multiply_adds == 2 * one.multiply_adds
    assert [part.tokens for part in two.parts] == [part.tokens for part in one.parts]


def test_fused_attention_of_torch_itself():
    """nn.MultiheadAttention runs as one operation in evaluation mode, which a counter cannot look into."""
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(2, 5, 8)
    with torch.no_grad():
        assert count(attention, x, x, x).multiply_adds == 2 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_training_step():
    """Backward costs two products for each: the gradients of weights and of inputs, but of the first input."""
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(3, 8)

    def step():
        network(x).sum().backward()

    assert count(step).multiply_adds == 3 * (3 * (8 * 16 + 16 * 4)) - 3 * 8 * 16

    def attend():
        q, k = torch.randn(2, 1, 4, 8, requires_grad=True), torch.randn(2, 1, 5, 8, requires_grad=True)
        F.scaled_dot_product_attention(q, k, k).sum().backward()

    # The fused backward computes the logits once more: two products forward, five backward.
    assert count(attend).multiply_adds == 2 * 7 * 4 * 5 * 8


def test_parts_and_tokens_of_stvit():
    model = tiny().eval()
    counted = count(model, torch.randn(1, 3, 32, 32))
    layers = [part for part in counted.parts if part.stage == 'encoder.layers']
    assert [(part.tokens, part.context) for part in layers] == [(64, None)] * 2 + [(9, 73)] * 2 + [(9, None)] * 2
    assert [part.name for part in counted.parts] == [
        'patch_embed',
        *(f'encoder.layers.{i}' for i in range(6)),
        'norm',
        '',  # the position table and the cluster centres
    ]
    assert counted.parts[0].input == (3, 32, 32)
    assert counted.parts[-1].parameters == 64 * 16 + 9 * 16
    assert sum(part.multiply_adds for part in counted.parts) == counted.multiply_adds
    assert (
        sum(part.parameters for part in counted.parts)
        == counted.parameters
        == sum(p.numel() for p in model.parameters())
    )
    assert counted.modules['encoder.layers.0'] == layers[0].multiply_adds == layer(16, 64)
    with pytest.raises(KeyError):
        counted.modules['encoder.layers.6']


def test_a_module_that_a_block_calls_beside_its_own_is_counted_once():
    """The embedding by which DTEM matches belongs to a step, and the block calls it."""
    model = STViT(TINY, reduce=dict(type='DTEM', r=3, dims=4), img_size=32, patch_size=4, with_cls_token=True).eval()
    counted = count(model, torch.randn(1, 3, 32, 32))
    parts = {part.name: part.multiply_adds for part in counted.parts}
    for i in range(6):
        embedded = (65 - 3 * i) * 16 * 4
        assert parts[f'encoder.steps.{i}.embedding'] == counted.modules[f'encoder.steps.{i}.embedding'] == embedded
        assert parts[f'encoder.layers.{i}'] == counted.modules[f'encoder.layers.{i}'] - embedded
    assert sum(parts.values()) == counted.multiply_adds and parts[''] == 0


def test_parts_of_a_pyramid_are_grouped_by_stage():
    model = STViTR(dict(embed_dims=8, depths=(1, 1, 6, 1), num_heads=(1,) * 4)).eval()
    counted = count(model, torch.randn(1, 3, 224, 224))
    third = [part for part in counted.parts if part.stage == 'stages.2']
    assert [(part.tokens, part.context) for part in third] == [
        (196, None), (36, 232), (36, 232), (36, None), (36, None), (196, 36), (None, None)
    ]  # fmt: skip
    assert third[-1].name == 'stages.2.downsample' and third[-1].input == (14, 14, 32)


def test_tokens_of_the_tokenizer():
    counted = on_meta(T2TViT, 224, 224, arch='7')
    tokens = {part.name: part.tokens for part in counted.parts}
    assert tokens['patch_embed.attention1'] == 56 * 56 and tokens['patch_embed.attention2'] == 28 * 28
    assert tokens['encoder.layers.0'] == 197


def test_a_network_without_attention_is_split_at_its_backbone():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
            self.head = nn.ModuleList([nn.Conv2d(4, 2, 1)] * 2)

        def forward(self, x):
            x = self.backbone(x)
            return [head(x) for head in self.head]

    counted = count(Detector(), torch.randn(1, 3, 8, 8))
    assert {part.name: part.multiply_adds for part in counted.parts} == {
        'backbone.0': 64 * 27 * 4,
        'backbone.1': 64 * 36 * 4,
        'head.0': 2 * 64 * 8,  # one convolution, used twice
    }
    assert counted.parameters == 4 * 28 + 4 * 37 + 2 * 5
    assert counted.modules['backbone'] == 64 * (27 + 36) * 4


def test_what_the_counter_cannot_see_is_named(monkeypatch):
    ops = pytest.importorskip('mmcv.ops')
    monkeypatch.setattr(ops.ModulatedDeformConv2dPack, 'forward', lambda self, x: x)  # it is compiled, or not there
    model = nn.Sequential(nn.Conv2d(3, 4, 1), ops.ModulatedDeformConv2dPack(4, 4, 3, padding=1))
    assert count(model, torch.randn(1, 3, 8, 8)).not_counted == ('1',)
