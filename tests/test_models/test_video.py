"""The forms for clips: against mmaction2's Video Swin, against the forms for images, and in its recognisers."""

import pytest
import torch

from mmstvit.compat.requires import require
from mmstvit.converters.inflate import resize_bias_table, table_grid
from mmstvit.layers.attention import relative_position_index
from mmstvit.models import STViT, STViTR, STViTSwin, STViTSwin3D, T2TViT

ARCH = dict(embed_dims=8, depths=(2, 2, 6, 2), num_heads=(1, 1, 2, 2))
VIT = dict(embed_dims=16, num_layers=5, num_heads=2, feedforward_channels=32)


def randomised(model):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        std = 0.3 if parameter.dim() > 1 else 0.5
        torch.nn.init.normal_(parameter, std=std, generator=generator)
    return model.eval()


def swin3d(**options):
    return STViTSwin3D(**{'arch': ARCH, 'window_size': (4, 3, 3), 'semantic_size': (2, 2, 2), **options})


@pytest.mark.parametrize('size', [(32, 64, 64), (7, 70, 61), (18, 90, 90), (2, 64, 120)])
def test_plain_is_video_swin_of_mmaction2(size):
    """Odd lengths, sizes that are no multiples of the window, clips shorter than it."""
    require('mmaction', 'video')
    from mmaction.models import SwinTransformer3D

    theirs = SwinTransformer3D(arch=ARCH, pretrained2d=False, window_size=(8, 2, 2))
    randomised(theirs)
    ours = STViTSwin3D(arch=ARCH, window_size=(8, 2, 2), semantic_size=None).eval()
    ours.load_state_dict(theirs.state_dict())
    clip = torch.randn(1, 3, *size)
    assert torch.allclose(ours(clip), theirs(clip), atol=1e-4)


def test_bias_of_a_smaller_window():
    """The row of two tokens depends on how far apart they are, whatever the window at hand: also where it is smaller
    along another axis than the first, which mmaction2's does not provide for."""
    table, window = (4, 3, 5), (2, 3, 2)
    index = relative_position_index(table, window)
    coords = torch.cartesian_prod(*(torch.arange(w) for w in window))
    for i, a in enumerate(coords):
        for j, b in enumerate(coords):
            t, h, w = (a - b).tolist()
            assert index[i, j] == ((t + 3) * 5 + h + 2) * 9 + w + 4


def still(image, frames):
    return image.unsqueeze(2).expand(-1, -1, frames, -1, -1)


@pytest.mark.parametrize(
    'semantic,frames,size',
    [
        *((True, frames, size) for frames in (16, 14, 6, 2) for size in ((96, 96), (80, 131))),
        # Plain Swin lets the zeros of padded windows be seen: windows must be full, or cover the clip.
        (False, 16, (96, 96)),
        (False, 6, (96, 96)),
    ],
)
def test_inflated_swin_on_a_still_clip(semantic, frames, size):
    """Weights of images give a clip that stands still the features of its image, at any length."""
    image_model = randomised(STViTSwin(ARCH, window_size=3, semantic_size=2 if semantic else None))
    clip_model = swin3d(semantic_size=(2, 2, 2) if semantic else None).eval()
    clip_model.load_state_dict(image_model.state_dict())
    image = torch.randn(2, 3, *size)
    expected, got = image_model(image)[0], clip_model(still(image, frames))
    assert got.shape[2] == (-(-frames // 8) * 2 if semantic else frames // 2)
    for step in got.unbind(2):
        assert torch.allclose(step, expected, atol=1e-4)


@pytest.mark.parametrize('options', [dict(), dict(with_cls_token=True), dict(recover=True, with_cls_token=True)])
@pytest.mark.parametrize('frames', [8, 6])
def test_inflated_vit_on_a_still_clip(options, frames):
    """At the length of the position table and at another."""
    common = dict(arch=VIT, stgm_layer=1, out_type='featmap', layer_scale_init_value=0.5, **options)
    image_model = randomised(STViT(img_size=64, semantic_grid=(2, 2), **common))
    clip_model = STViT(img_size=(8, 64, 64), patch_size=(2, 16, 16), semantic_grid=(3, 2, 2), **common).eval()
    clip_model.load_state_dict(image_model.state_dict())
    image = torch.randn(2, 3, 64, 64)
    expected, got = image_model(image)[0], clip_model(still(image, frames))
    for step in got.unbind(2):
        assert torch.allclose(step, expected, atol=1e-4)


def test_inflated_deit_file_on_a_still_clip():
    """A DeiT of timm, unconverted, with its class token."""
    timm = pytest.importorskip('timm')
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=64, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2, num_classes=5
    )
    theirs.eval()
    ours = STViT(
        dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
        img_size=(8, 64, 64),
        patch_size=(2, 16, 16),
        semantic_grid=None,
        with_cls_token=True,
        out_type='cls_token',
    ).eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    image = torch.randn(2, 3, 64, 64)
    assert torch.allclose(ours(still(image, 8)), theirs.forward_features(image)[:, 0], atol=1e-4)


@pytest.mark.parametrize('dense', [True, False])
def test_inflated_recovery_on_a_still_clip(dense):
    common = dict(arch=ARCH, stem='patch', dense=dense, layer_scale_init_value=0.5, out_indices=(2, 3))
    image_model = randomised(STViTR(window_size=3, semantic_size=2, **common))
    clip_model = STViTR(window_size=(4, 3, 3), semantic_size=(2, 2, 2), **common).eval()
    clip_model.load_state_dict(image_model.state_dict())
    image = torch.randn(1, 3, 96, 131 if dense else 96)
    for expected, got in zip(image_model(image), clip_model(still(image, 16)), strict=True):
        for step in got.unbind(2):
            assert torch.allclose(step, expected, atol=1e-4)


@pytest.mark.parametrize('make', [lambda: swin3d(semantic_size=(3, 2, 2)), lambda: swin3d(semantic_size=None)])
@pytest.mark.parametrize('size', [(1, 33, 47), (9, 64, 100), (33, 50, 128)])
def test_any_length_and_size(make, size):
    model = randomised(make())
    out = model(torch.randn(1, 3, *size))
    assert out.isfinite().all() and out.shape[:2] == (1, 64)


def test_semantic_maps_in_space_and_time():
    """4 x 3 x 3 windows of 2 x 2 x 2 of 16 steps of time; patch merging joins in space alone."""
    clip = torch.randn(1, 3, 32, 144, 144)
    assert randomised(swin3d())(clip).shape == (1, 64, 8, 3, 3)
    assert randomised(swin3d(semantic_size=(3, 2, 2)))(clip).shape == (1, 64, 12, 3, 3)
    maps = randomised(swin3d(out_indices=(0, 1, 2, 3)))(clip)
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 16, 36, 36), (16, 16, 18, 18), (32, 8, 6, 6), (64, 8, 3, 3)]


def test_motion_matters():
    """The order of the frames changes the features."""
    model, clip = randomised(swin3d()), torch.randn(1, 3, 16, 64, 64)
    assert not torch.allclose(model(clip).mean((2, 3, 4)), model(clip.flip(2)).mean((2, 3, 4)), atol=1e-3)


@pytest.mark.parametrize('head', ['I3DHead', 'TimeSformerHead', 'swin'])
def test_every_parameter_learns_in_a_recogniser(head):
    require('mmaction', 'video')
    from mmaction.registry import MODELS
    from mmaction.structures import ActionDataSample
    from mmengine.registry import DefaultScope

    vit = dict(type='mmstvit.STViT', arch=VIT, img_size=(4, 32, 32), patch_size=(2, 8, 8), semantic_grid=(2, 2, 2))
    backbone, head = {
        'I3DHead': (dict(vit, stgm_layer=1, out_type='featmap'), dict(type='I3DHead', in_channels=16)),
        'TimeSformerHead': (dict(vit, stgm_layer=1), dict(type='TimeSformerHead', in_channels=16)),
        'swin': (
            dict(type='mmstvit.STViTSwin3D', arch=ARCH, window_size=(2, 2, 2), semantic_size=(1, 1, 1)),
            dict(type='I3DHead', in_channels=64),
        ),
    }[head]
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(
            dict(type='Recognizer3D', backbone=backbone, cls_head=dict(head, num_classes=3, average_clips='prob'))
        ).train()
    samples = [ActionDataSample().set_gt_label(i) for i in (0, 2)]
    clips = torch.randn(2, 1, 3, 4, 32, 32)
    loss = sum(model(clips, samples, mode='loss').values())
    loss.sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    predicted = model.eval()(clips, samples, mode='predict')
    assert predicted[0].pred_score.shape == (3,)


@pytest.mark.parametrize(
    'kind,options,message',
    [
        (STViTSwin3D, dict(window_size=7), 'window_size=7 must be .time, rows, columns.'),
        (STViTSwin3D, dict(semantic_size=4), 'semantic_size=4 must be .time, rows, columns.'),
        (STViTSwin3D, dict(semantic_size=(9, 4, 4)), 'must be between 1 and window_size'),
        (STViTSwin3D, dict(patch_size=(4, 4)), 'patch_size=.4, 4. must be'),
        (STViTSwin3D, dict(stem='conv'), "stem='conv' is for images"),
        (STViTSwin, dict(window_size=(2, 2, 2, 2)), 'must have 2 numbers for images or 3 for clips'),
        (STViTSwin, dict(stem='conv', patch_size=4), 'patch_size=4 has no effect'),
        (STViT, dict(patch_size=(2, 16, 16)), 'img_size=224 must be .time, rows, columns.'),
        (STViT, dict(patch_size=(2, 16, 16), img_size=(8, 64, 64)), r'semantic_grid=\(4, 4\) must be .time'),
    ],
)  # fmt: skip
def test_wrong_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_image_for_clips_and_clip_for_images():
    with pytest.raises(ValueError, match='takes .batch, channels, frames, height, width., got the shape'):
        swin3d()(torch.zeros(1, 3, 64, 64))
    clip = torch.zeros(1, 3, 4, 64, 64)
    for model in (STViT('tiny'), STViTR('tiny'), T2TViT('7')):
        with pytest.raises(ValueError, match='takes .batch, channels, height, width., got the shape'):
            model(clip)


@pytest.mark.parametrize('rows,grid', [(169, (13, 13)), (15 * 169, (15, 13, 13)), (31 * 169, (31, 13, 13)), (12, None)])
def test_grid_of_a_bias_table(rows, grid):
    assert table_grid(rows) == grid


def test_bias_table_of_another_window():
    """Of images: resized in space, repeated in time; of a shorter window in time: interpolated."""
    table = torch.randn(5 * 5, 2)
    inflated = resize_bias_table(table, (7, 5, 5)).unflatten(0, (7, 5, 5))
    assert all(torch.equal(step, table.unflatten(0, (5, 5))) for step in inflated)
    assert resize_bias_table(table, (7, 9, 9)).shape == (7 * 81, 2)
    longer = resize_bias_table(torch.ones(3 * 25, 2), (5, 5, 5))
    assert torch.allclose(longer, torch.ones(125, 2))
    assert resize_bias_table(table, (9, 9)).shape == (81, 2)
