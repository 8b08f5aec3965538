"""Token maps: the weights that the forward pass computes with, at the cells and pixels where they belong."""

import math

import cv2
import mmcv
import numpy as np
import pytest
import torch

from mmstvit import get_model
from mmstvit.layers.block import TransformerBlock
from mmstvit.layers.layout import WholeImage
from mmstvit.layers.published_layout import PublishedWindows
from mmstvit.layers.steps import Generation, Recovery, Refinement
from mmstvit.layers.tokens import Tokens
from mmstvit.layers.window_layout import PaddedWindows, StretchedWindows, WindowSpec
from mmstvit.models import STViT, STViTR, STViTSwin, STViTSwin3D, TokenRecovery
from mmstvit.visualization import recording, token_maps
from mmstvit.visualization.maps import LayerMaps

CPU = torch.device('cpu')


def windows(kind, grid, window, size, **options):
    return kind(WindowSpec(window, size), grid, CPU, **options)


LAYOUTS = {
    'whole image': WholeImage((5, 7), CPU, 1, (2, 3)),
    'whole clip': WholeImage((4, 3, 5), CPU, 0, (2, 1, 2)),
    'stretched': windows(StretchedWindows, (6, 9), (4, 4), (2, 3)),
    'stretched clip': windows(StretchedWindows, (4, 6, 5), (2, 3, 3), (1, 2, 2)),
    'dense': windows(PaddedWindows, (6, 9), (4, 4), (2, 2)),
    'dense in bands': windows(PaddedWindows, (26, 9), (4, 4), (2, 2)),
    'dense as published': windows(PublishedWindows, (26, 9), (4, 4), (2, 2)),
    'dense without mask': windows(PublishedWindows, (14, 9), (4, 4), (2, 2), hide=False),
    'dense clip': windows(PaddedWindows, (5, 6, 7), (2, 3, 3), (1, 2, 2)),
}


@pytest.mark.parametrize('kind', [Generation, Refinement, Recovery])
@pytest.mark.parametrize('name', LAYOUTS)
def test_weights_are_those_of_the_forward_pass_at_their_cells(name, kind):
    """Each key has a value of its own, the number of its cell one-hot: what attention returns is its weights."""
    torch.manual_seed(0)
    layout = LAYOUTS[name]
    recovers = kind is Recovery
    mixed, keys = 4, math.prod(layout.cells if recovers else layout.grid)
    width = mixed + keys  # of each of two heads
    # No norm, no MLP and no shortcut: the block is its attention.
    block = TransformerBlock(2 * width, 2, 1)
    block.norm1 = torch.nn.Identity()
    attention = block.attn
    with torch.no_grad():
        attention.proj.weight.copy_(torch.eye(2 * width))
        attention.qkv.bias.zero_()
        attention.proj.bias.zero_()
        q, k, v = attention.qkv.weight.split(2 * width)
        v.copy_(torch.eye(2 * width))
        for weight in (q, k):
            torch.nn.init.normal_(weight, std=0.7)
            weight.unflatten(1, (2, width))[..., mixed:] = 0

    def tokens(*shape, numbered):
        x = torch.zeros(1, *shape, 2, width)
        x[..., :mixed] = torch.randn(1, *shape, 2, mixed)
        if numbered:
            x[..., mixed:] = torch.eye(keys).reshape(1, *shape, 1, keys)
        return x.flatten(-2)

    image = layout.image_from_grid(tokens(*layout.grid, numbered=not recovers))
    semantic = layout.from_grid(tokens(*layout.cells, numbered=recovers))
    for x in (image, semantic):
        x[:, : layout.num_prefix] = tokens(1, numbered=False)
    step = kind(2 * width) if kind is not Recovery else kind()
    given = Tokens(image, layout) if kind is Generation else Tokens(semantic, layout, image)
    if kind is Generation:
        step.operands = lambda given: (layout, semantic, semantic, image)  # queries without cells of their own
    _, query, *parts = step.operands(given)
    with torch.no_grad():
        out = attention(query, *step.context(layout, *parts))
        found = step.token_map(block, given)
    expected = layout.image_to_grid(out) if recovers else layout.to_grid(out)
    expected = expected.unflatten(-1, (2, width))[..., mixed:].mean(-2)
    assert found.shape == (1, *(layout.grid if recovers else layout.cells), keys)
    assert torch.allclose(found, expected, atol=1e-6)
    assert float(found.sum(-1).min()) > 0.05 and float(found.sum(-1).max()) < 1 + 1e-5


PLAIN = dict(embed_dims=16, num_layers=5, num_heads=2, feedforward_channels=32)
SWIN = dict(embed_dims=8, depths=(1, 2, 6, 1), num_heads=(1, 1, 2, 2))
TWO_UNITS = dict(embed_dims=8, depths=(1, 1, 12, 1), num_heads=(1, 1, 2, 2))

# Backbone, options, size of the input, grids of image and semantic tokens, pixels of a cell, units.
BACKBONES = {
    'STViT': (
        STViT,
        dict(arch=PLAIN, img_size=28, patch_size=4, stgm_layer=1, with_cls_token=True),
        (34, 30), (9, 8), (4, 4), (4, 4), 1,
    ),
    'STViT recover': (
        STViT,
        dict(arch=PLAIN, img_size=28, patch_size=(4, 7), stgm_layer=1, recover=True, out_type='featmap'),
        (34, 30), (9, 5), (4, 4), (4, 7), 1,
    ),
    'STViT 3D': (
        STViT,
        dict(arch=PLAIN, img_size=(4, 16, 16), patch_size=(2, 4, 4), semantic_grid=(1, 2, 2), stgm_layer=1),
        (4, 16, 18), (2, 4, 5), (1, 2, 2), (2, 4, 4), 1,
    ),
    'STViT on T2T': (
        STViT,
        dict(arch=PLAIN, img_size=64, tokenizer=dict(type='T2TModule', token_dims=8), semantic_grid=2, stgm_layer=1),
        (64, 96), (4, 6), (2, 2), (16, 16), 1,
    ),
    'STViTSwin': (
        STViTSwin, dict(arch=SWIN, window_size=3, semantic_size=2), (96, 90), (6, 6), (4, 4), (16, 16), 1,
    ),
    'STViTSwin 3D': (
        STViTSwin3D,
        dict(arch=SWIN, window_size=(2, 3, 3), semantic_size=(1, 2, 2)),
        (8, 96, 60), (4, 6, 4), (2, 4, 4), (2, 16, 16), 1,
    ),
    'STViTR': (
        STViTR, dict(arch=TWO_UNITS, window_size=3, semantic_size=2), (90, 96), (6, 6), (4, 4), (16, 16), 2,
    ),
    'STViTR dense': (
        STViTR, dict(arch=SWIN, window_size=3, semantic_size=2, dense=True), (130, 60), (9, 4), (6, 4), (16, 16), 1,
    ),
}  # fmt: skip


def build(name):
    torch.manual_seed(0)
    kind, options, size, *_ = BACKBONES[name]
    return kind(**options).eval(), torch.randn(2, 3, *size)


def tensors(out):
    return [out] if isinstance(out, torch.Tensor) else list(out)


@pytest.mark.parametrize('name', BACKBONES)
def test_maps_of_every_form(name):
    _, _, size, grid, cells, pixels, units = BACKBONES[name]
    model, inputs = build(name)
    maps = token_maps(model, inputs, view=1)
    alone = token_maps(model, inputs[1:])
    assert maps.semantic_grid == cells and maps.image.shape == (*size, 3)
    roles = ['generate', 'refine'] + ['recover'] * (name in ('STViT recover', 'STViTR', 'STViTR dense'))
    assert [(layer.role, layer.unit) for layer in maps.layers] == [(r, u + 1) for u in range(units) for r in roles]
    for layer, same in zip(maps.layers, alone.layers, strict=True):
        assert layer.attention.shape == (math.prod(cells), *grid)
        assert (layer.cell, layer.size) == (pixels, size)
        np.testing.assert_allclose(layer.attention, same.attention, atol=1e-6)
        over = 0 if layer.role == 'recover' else tuple(range(1, 1 + len(grid)))
        np.testing.assert_allclose(layer.attention.sum(over), 1, atol=1e-5)
        np.testing.assert_allclose(layer.resized().sum(over), 1, atol=1e-4)
        assert layer.assigned().shape == size
        assert layer.assigned().min() >= 0 and layer.live[layer.assigned()].all()
        assert maps.layer(layer.role, layer.unit) is layer
        assert dict(model.named_modules())[layer.name] in model.modules()
    assert maps.layers[0].live.all() == (name != 'STViTR dense')
    assert (maps.layers[0].share < 0.999).any() == (name != 'STViTR dense')


@pytest.mark.parametrize('name', BACKBONES)
def test_outputs_are_equal_and_no_hook_stays(name):
    model, inputs = build(name)
    with torch.no_grad():
        before = tensors(model(inputs))
        with recording(model) as recorder:
            during = tensors(model(inputs))
        after = tensors(model(inputs))
    assert recorder.maps().layers
    for one, two, three in zip(before, during, after, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_hooks_go_when_the_forward_pass_fails():
    model, inputs = build('STViT')
    with pytest.raises(ValueError, match='the backbone takes'):
        token_maps(model, inputs[0])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_compiled_model_is_seen_too():
    model, inputs = build('STViT')
    expected = token_maps(model, inputs)
    model.forward = torch.compile(model.forward, backend='eager')
    with torch.no_grad():
        model(inputs)
    found = token_maps(model, inputs)
    for one, two in zip(expected.layers, found.layers, strict=True):
        np.testing.assert_allclose(one.attention, two.attention, atol=1e-6)


def test_the_odd_patch_is_where_it_is_in_the_image():
    """All cells alike but one: each map is flat but for it."""
    torch.manual_seed(0)
    options = dict(arch=PLAIN, img_size=(24, 32), patch_size=4, stgm_layer=0, semantic_grid=2)
    model = STViT(**options).eval()
    model.pos_embed.data.zero_()
    image = torch.zeros(1, 3, 24, 32)
    image[:, :, 4:8, 20:24] = 3
    for layer in token_maps(model, image).layers:
        assert layer.attention.shape == (4, 6, 8)
        for soft in layer.attention:
            odd = np.abs(soft - np.median(soft))
            assert odd.argmax() == np.ravel_multi_index((1, 5), soft.shape)
            assert odd[1, 5] > 100 * np.sort(odd.ravel())[-2]


def layer_maps(attention, role='refine', live=None, cell=(4, 4), size=(10, 11)):
    live = np.ones(len(attention), bool) if live is None else np.array(live)
    return LayerMaps('layer', role, 1, np.float32(attention), np.ones(len(attention)), live, cell, size)


def test_each_pixel_has_the_token_of_its_cell():
    attention = np.random.default_rng(0).random((5, 3, 3))
    layer = layer_maps(attention, live=[True, True, False, True, True])
    expected = np.array([0, 1, 3, 4])[attention[[0, 1, 3, 4]].argmax(0)]
    np.testing.assert_array_equal(layer.assigned_cells(), expected)
    rows, columns = np.mgrid[:10, :11] // 4
    np.testing.assert_array_equal(layer.assigned(), expected[rows, columns])


def test_a_cell_that_nobody_attends_to_has_no_token():
    attention = np.zeros((2, 3, 3))
    attention[1, 0, 2] = 1
    assigned = layer_maps(attention).assigned_cells()
    assert assigned[0, 2] == 1 and (np.delete(assigned.ravel(), 2) == -1).all()


def test_resized_maps_lie_between_the_centres_of_cells():
    attention = np.zeros((2, 3, 3))
    attention[0, 1, 0], attention[1, 2, 2] = 1, 1
    layer = layer_maps(attention)
    soft = layer.resized([1, 0])
    assert soft.shape == (2, 10, 11)
    np.testing.assert_allclose(soft.sum((1, 2)), 1, atol=1e-6)
    middle = soft[1] / soft[1].max()
    np.testing.assert_allclose(
        middle[:, 0], [0, 0, 0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125] / np.float32(0.875)
    )
    assert soft[0, :6].max() == 0 and soft[0, 9].argmax() == 10


def test_what_is_not_there_is_refused():
    model, inputs = build('STViTR')
    with pytest.raises(ValueError, match='no view 2: .* got 2'):
        token_maps(model, inputs, view=2)
    maps = token_maps(model, inputs)
    with pytest.raises(ValueError, match='no semantic token 16: .* 0 to 15'):
        maps.layers[0].resized([3, 16])
    with pytest.raises(ValueError, match="'recover' of unit 3: .*generate of unit 1, refine of unit 1"):
        maps.layer('recover', 3)
    with pytest.raises(ValueError, match='no unit 3: .* 1 to 2'):
        maps.of_unit(3)
    assert [layer.unit for layer in maps.of_unit(2).layers] == [2, 2, 2]
    plain = STViT(arch=PLAIN, img_size=32, patch_size=4, semantic_grid=None)
    with pytest.raises(ValueError, match='STViT has no semantic tokens'):
        token_maps(plain, torch.zeros(1, 3, 32, 32))


def test_views_that_come_one_after_the_other():
    model, inputs = build('STViTSwin 3D')
    with recording(model, view=1) as recorder, torch.no_grad():
        model(inputs[:1])
        model(inputs[1:])
    expected = token_maps(model, inputs[1:])
    np.testing.assert_allclose(recorder.maps().layers[0].attention, expected.layers[0].attention, atol=1e-6)


class Recovered(torch.nn.Module):
    """A backbone and the neck behind it, as a detector runs them."""

    def __init__(self, out_indices=(0, 4), **options):
        super().__init__()
        self.backbone = STViT(
            arch=PLAIN, img_size=28, patch_size=4, stgm_layer=1, semantic_grid=(2, 3), with_cls_token=True,
            out_type='featmap', out_indices=out_indices, **options,
        )  # fmt: skip
        self.neck = TokenRecovery(embed_dims=16, num_heads=2)

    def forward(self, images):
        return self.neck(self.backbone(images))


def test_maps_of_recovery_in_a_neck():
    """What the neck's attention returns for one-hot values are its weights, the mean over heads."""
    torch.manual_seed(0)
    model, images = Recovered().eval(), torch.randn(2, 3, 34, 30)
    given = []
    model.neck.layer.attn.register_forward_pre_hook(lambda module, args: given.append(args))
    with torch.no_grad():
        expected = model(images)
        with recording(model, view=1) as recorder:
            out = model(images)
    assert torch.equal(out[0], expected[0])
    maps = recorder.maps()
    assert [(layer.role, layer.unit) for layer in maps.layers] == [('generate', 1), ('refine', 1), ('recover', 1)]
    layer = maps.layer('recover')
    assert layer.name == 'neck.layer' and layer.attention.shape == (6, 9, 8)
    assert (layer.cell, layer.size) == ((4, 4), (34, 30)) and layer.live.all()
    # By hand, from what the neck was given.
    attention, (query, (context,), *_) = model.neck.layer.attn, given[0]
    with torch.no_grad():
        q, k, _ = torch.nn.functional.linear(
            torch.cat((query, context), 1), attention.qkv.weight, attention.qkv.bias
        ).chunk(3, -1)
    q, k = (x[1].unflatten(-1, (2, 8)).transpose(0, 1) for x in (q[:, :72], k[:, 72:]))
    weights = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1).mean(0)  # (cells, tokens)
    np.testing.assert_allclose(layer.attention, weights.T.unflatten(1, (9, 8)), atol=1e-6)
    assert not model.neck._forward_pre_hooks


def test_a_neck_on_other_maps_is_refused():
    model = Recovered(out_indices=(0, 1))

    def forward(images):
        image, semantic = model.backbone(images)
        return model.neck((image[..., ::2, ::2], semantic))

    with pytest.raises(ValueError, match=r'\(5, 4\) image tokens from \(2, 3\)'):
        with recording(model), torch.no_grad():
            forward(torch.zeros(1, 3, 34, 30))


# ---------------------------------------------------------------------------------------------- through the toolboxes
def test_an_image_is_shown_as_the_network_sees_it():
    model = get_model('configs/digits/stvit-tiny_digits.py')
    bgr = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    maps = token_maps(model, bgr)
    # Resize(scale=32) of mmpretrain takes no account of the ratio of the edges.
    np.testing.assert_array_equal(maps.image, mmcv.imresize(bgr, (32, 32), interpolation='bicubic')[..., ::-1])
    assert set(maps.result) == {'pred_scores', 'pred_label', 'pred_score', 'pred_class'}
    normalised = torch.from_numpy(maps.image / np.float32(127.5) - 1).permute(2, 0, 1)[None]
    again = token_maps(model.backbone, normalised)
    np.testing.assert_allclose(again.layers[1].attention, maps.layers[1].attention, atol=1e-5)


def test_maps_of_a_detector():
    pytest.importorskip('mmdet')
    model = get_model('configs/digits/mask-rcnn_stvit-r_digits.py')
    bgr = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    maps = token_maps(model, bgr)
    resized = mmcv.imrescale(bgr, (128, 128))[..., ::-1]
    height, width = resized.shape[:2]
    assert maps.image.shape[1] == 128 and maps.image.shape[0] % 32 == 0
    np.testing.assert_array_equal(maps.image[:height, :width], resized)
    assert not maps.image[height:].any()
    assert maps.layer('recover').size == maps.image.shape[:2]


def test_maps_of_a_clip(tmp_path):
    pytest.importorskip('mmaction')
    path = str(tmp_path / 'clip.mp4')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'mp4v'), 10, (64, 64))
    for t in range(8):
        writer.write(np.full((64, 64, 3), (200, 30 * t, 20), np.uint8))
    writer.release()
    maps = token_maps(get_model('configs/digits/stvit-swin3d_digits.py'), path)
    assert maps.image.shape == (8, 48, 48, 3)
    blue_of_the_first, green = maps.image[0, ..., 2].mean(), maps.image.mean((1, 2))[:, 1]
    assert blue_of_the_first > 150 and (np.diff(green) > 15).all()
    assert maps.layers[0].cell == (2, 16, 16) and maps.layers[0].assigned().shape == (8, 48, 48)
