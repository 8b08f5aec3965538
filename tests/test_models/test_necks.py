import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from mmstvit.models import SimpleFeaturePyramid, STViT, TokenRecovery

ARCH = dict(embed_dims=16, num_layers=6, num_heads=2, feedforward_channels=32)
SEMANTIC = dict(arch=ARCH, img_size=64, patch_size=16, semantic_grid=(2, 2), stgm_layer=2, out_type='featmap')


def randomise(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


def test_recovery_behind_a_backbone_is_recovery_inside_it():
    """The last layer of STViT(recover=True) moved into the neck gives the same map."""
    whole = randomise(STViT(**{**SEMANTIC, 'layer_scale_init_value': 1.0}, recover=True))
    front = STViT(
        **{**SEMANTIC, 'arch': {**ARCH, 'num_layers': 5}, 'layer_scale_init_value': 1.0},
        out_indices=(1, 4),
        final_norm=False,
    ).eval()
    front.load_state_dict(
        {n: v for n, v in whole.state_dict().items() if not n.startswith(('encoder.layers.5', 'norm'))}
    )
    neck = TokenRecovery(16, 2, feedforward_channels=32, layer_scale_init_value=1.0).eval()
    neck.layer.load_state_dict(whole.encoder.layers[5].state_dict())
    neck.norm.load_state_dict(whole.norm.state_dict())
    image = torch.randn(2, 3, 64, 96)
    maps = front(image)
    assert [m.shape for m in maps] == [(2, 16, 4, 6), (2, 16, 2, 2)]
    assert torch.allclose(neck(maps)[0], whole(image)[0], atol=1e-5)


def test_recovery_of_clips():
    neck = randomise(TokenRecovery(16, 2))
    image, semantic = torch.randn(1, 16, 4, 5, 6), torch.randn(1, 16, 2, 3, 3)
    out = neck((image, semantic))[0]
    flat = neck((image.flatten(2), semantic.flatten(2)))[0]
    assert out.shape == image.shape and torch.equal(out.flatten(2), flat)


@pytest.mark.parametrize(
    'option',
    [
        dict(feedforward_channels=16),
        dict(qkv_bias=False),
        dict(layer_scale_init_value=0.5),
        dict(final_norm=False),
        dict(norm_cfg=dict(type='LN', eps=0.1)),
    ],
)
def test_every_option_of_recovery_takes_effect(option):
    maps = (torch.randn(1, 16, 4, 5), torch.randn(1, 16, 2, 2))
    assert not torch.allclose(
        randomise(TokenRecovery(16, 2))(maps)[0], randomise(TokenRecovery(16, 2, **option))(maps)[0], atol=1e-4
    )


@pytest.mark.parametrize('option', [dict(drop_rate=0.5), dict(attn_drop_rate=0.5), dict(drop_path_rate=0.5)])
def test_dropout_of_recovery_acts_in_training(option):
    maps = (torch.randn(8, 16, 4, 5), torch.randn(8, 16, 2, 2))
    neck = randomise(TokenRecovery(16, 2, **option))
    assert torch.equal(neck(maps)[0], neck(maps)[0])
    neck.train()
    assert not torch.equal(neck(maps)[0], neck(maps)[0])


@pytest.mark.parametrize('shapes', [[(1, 16, 4, 4)], [(1, 16, 4, 4), (1, 8, 2, 2)], [(1, 16), (1, 16)]])
def test_recovery_says_what_it_takes(shapes):
    with pytest.raises(ValueError, match=r'takes an image map and .* \(B, 16, \.\.\.\)'):
        TokenRecovery(16, 2)([torch.zeros(shape) for shape in shapes])


@pytest.mark.parametrize('size', [(8, 8), (5, 7), (1, 1)])
@pytest.mark.parametrize('num_outs', [4, 5, 6])
def test_pyramid_shapes(size, num_outs):
    outs = randomise(SimpleFeaturePyramid(16, 12, num_outs))((torch.randn(2, 16, *size),))
    expected, (rows, columns) = [], (4 * size[0], 4 * size[1])
    for _ in range(num_outs):
        expected.append((2, 12, rows, columns))
        rows, columns = -(-rows // 2), -(-columns // 2)
    assert [tuple(out.shape) for out in outs] == expected
    assert all(out.is_contiguous() for out in outs)


def test_pyramid_written_out():
    neck = randomise(SimpleFeaturePyramid(8, 4, num_outs=5))
    x = torch.randn(1, 8, 6, 6)

    def norm(x, layer):
        mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        x = (x - mean) / (var + 1e-6).sqrt()
        return x * layer.weight[:, None, None] + layer.bias[:, None, None]

    def up(x, layer):
        """Each pixel becomes 2 x 2: a transposed convolution whose stride is its size."""
        out = torch.einsum('bchw,cdij->bdhiwj', x, layer.weight).flatten(4, 5).flatten(2, 3)
        return out + layer.bias[:, None, None]

    first = neck.levels[0][0]
    levels = [up(F.gelu(norm(up(x, first[0]), first[1])), first[3]), up(x, neck.levels[1][0]), x, F.max_pool2d(x, 2)]
    outs = neck(x)
    for out, level, layers in zip(outs, levels, neck.levels):
        level = norm(F.conv2d(level, layers[1].weight), layers[2])
        assert torch.allclose(out, norm(F.conv2d(level, layers[3].weight, padding=1), layers[4]), atol=1e-4)
    assert torch.equal(outs[4], outs[3][:, :, ::2, ::2])


@pytest.mark.parametrize(
    'options,message', [(dict(in_channels=6), 'multiple of 4'), (dict(in_channels=8, num_outs=3), 'at least 4')]
)
def test_pyramid_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(**options)


@pytest.mark.parametrize('inputs', [[torch.zeros(1, 8, 2, 2)] * 2, [torch.zeros(1, 4, 2, 2)], []])
def test_pyramid_says_what_it_takes(inputs):
    with pytest.raises(ValueError, match=r'takes one map \(B, 8, H, W\)'):
        SimpleFeaturePyramid(8)(inputs)


NECKS = [
    dict(type='mmstvit.TokenRecovery', embed_dims=16, num_heads=2),
    dict(type='mmstvit.SimpleFeaturePyramid', in_channels=16, out_channels=16),
]
BACKBONE = dict(type='mmstvit.STViT', **SEMANTIC, out_indices=(1, 5))


def test_necks_in_mmpretrain():
    models = pytest.importorskip('mmpretrain.registry').MODELS
    head = dict(type='LinearClsHead', num_classes=5, in_channels=16)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        neck = [NECKS[0], dict(type='GlobalAveragePooling')]
        model = models.build(dict(type='ImageClassifier', backbone=BACKBONE, neck=neck, head=head))
    assert model.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_necks_in_mmdet():
    """A plain STViT with a semantic last layer feeds a RetinaNet: a forward, and a gradient for each parameter."""
    pytest.importorskip('mmdet')
    models = pytest.importorskip('mmdet.registry').MODELS
    from mmdet.testing import demo_mm_inputs

    with DefaultScope.overwrite_default_scope('mmdet'):
        model = models.build(
            ConfigDict(
                type='RetinaNet',
                data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
                backbone=BACKBONE,
                neck=NECKS,
                bbox_head=dict(
                    type='RetinaHead',
                    num_classes=3,
                    in_channels=16,
                    stacked_convs=1,
                    feat_channels=16,
                    anchor_generator=dict(
                        type='AnchorGenerator',
                        octave_base_scale=4,
                        scales_per_octave=1,
                        ratios=[1.0],
                        strides=[4, 8, 16, 32, 64],
                    ),
                    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
                ),
                train_cfg=dict(
                    assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
                    sampler=dict(type='PseudoSampler'),
                    allowed_border=-1,
                    pos_weight=-1,
                ),
                test_cfg=dict(
                    nms_pre=100, min_bbox_size=0, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10
                ),
            )
        )
        data = model.data_preprocessor(demo_mm_inputs(2, [[3, 96, 128]] * 2, num_classes=3), True)
        losses = model(**data, mode='loss')
        loss, _ = model.parse_losses(losses)
        loss.backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
        results = model.eval()(**data, mode='predict')
    assert len(results) == 2 and results[0].pred_instances.bboxes.shape[1] == 4
