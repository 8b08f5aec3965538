"""mmcv's operators from torchvision: formulas written out, mmcv's compiled ones where they are, mmdet's detectors."""

import copy
import importlib.util
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmstvit.compat import mmcv_operators

pytest.importorskip('mmcv')
from mmcv.ops import RoIAlign, RoIPool, batched_nms, nms, sigmoid_focal_loss, soft_nms  # noqa: E402

COMPILED = importlib.util.find_spec('mmcv._ext').origin != mmcv_operators.__file__

NO_HALF = pytest.mark.skipif(COMPILED, reason="mmcv's own operators know no half precision on a CPU")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def some_boxes(count, generator, extent=60.0):
    corner = torch.rand(count, 2, generator=generator) * extent
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * extent / 3], dim=1)


def some_rois(count, generator, images=2):
    batch = torch.randint(0, images, (count, 1), generator=generator).float()
    return torch.cat([batch, some_boxes(count, generator)], dim=1)


# ------------------------------------------------------------------------------------------------------------ NMS
def nms_of_paper(boxes, scores, threshold, offset):
    """Greedy suppression, box by box."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def overlap(a, b, offset):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
@pytest.mark.parametrize('count', [0, 1, 2, 150])
def test_nms(count, threshold, offset, generator):
    boxes, scores = some_boxes(count, generator), torch.rand(count, generator=generator)
    dets, kept = nms(boxes, scores, threshold, offset)
    assert kept.tolist() == nms_of_paper(boxes.double().tolist(), scores.tolist(), threshold, offset)
    assert torch.equal(dets, torch.cat([boxes[kept], scores[kept, None]], dim=1))


def test_offset_changes_what_nms_keeps():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]])  # they touch: one column of pixels is shared
    assert len(nms(boxes, torch.tensor([0.9, 0.8]), 0.3, offset=0)[1]) == 2
    assert len(nms(boxes, torch.tensor([0.9, 0.8]), 0.3, offset=1)[1]) == 1


def test_nms_of_several_classes(generator):
    boxes, scores = some_boxes(80, generator), torch.rand(80, generator=generator)
    classes = torch.randint(0, 3, (80,), generator=generator)
    kept = batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.4))[1]
    expected = []
    for label in range(3):
        members = (classes == label).nonzero().flatten()
        own = nms_of_paper(boxes[members].double().tolist(), scores[members].tolist(), 0.4, 0)
        expected += members[own].tolist()
    assert sorted(kept.tolist()) == sorted(expected)


# ------------------------------------------------------------------------------------------------- RoIAlign, RoIPool
def bilinear(feature, y, x):
    """The value of ``feature`` (C, H, W) between its pixels; 0 more than a pixel outside."""
    height, width = feature.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(feature), dtype=feature.dtype)
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = (1 - dx) * feature[:, top, left] + dx * feature[:, top, right]
    lower = (1 - dx) * feature[:, bottom, left] + dx * feature[:, bottom, right]
    return (1 - dy) * upper + dy * lower


def roi_align_of_paper(features, rois, size, scale, samples, aligned):
    """Mean of ``samples`` x ``samples`` points a bin, or as many as pixels (Mask R-CNN, section 3)."""
    pooled = features.new_zeros(len(rois), features.shape[1], *size)
    for k, roi in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0.0) for value in roi[1:])
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        rows, columns = samples or math.ceil(height / size[0]), samples or math.ceil(width / size[1])
        for i in range(size[0]):
            for j in range(size[1]):
                values = [
                    bilinear(
                        features[int(roi[0])],
                        y1 + (i + (a + 0.5) / rows) * height / size[0],
                        x1 + (j + (b + 0.5) / columns) * width / size[1],
                    )
                    for a in range(rows)
                    for b in range(columns)
                ]
                pooled[k, :, i, j] = sum(values) / max(len(values), 1)
    return pooled


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('samples', [0, 2])
def test_roi_align(samples, aligned, generator):
    features = torch.randn(2, 3, 18, 16, generator=generator, dtype=torch.float64).requires_grad_()
    rois = some_rois(5, generator).double()
    rois[0, 3:] = rois[0, 1:3]  # one of no extent
    pooled = RoIAlign((3, 2), 0.25, samples, aligned=aligned)(features, rois)
    weights = torch.randn(pooled.shape, generator=generator, dtype=torch.float64)
    (grad,) = torch.autograd.grad((pooled * weights).sum(), features)
    expected = roi_align_of_paper(features, rois, (3, 2), 0.25, samples, aligned)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), features)
    torch.testing.assert_close(pooled, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(grad, expected_grad, atol=1e-6, rtol=0)


def roi_pool_of_paper(features, rois, size, scale):
    """Largest value of each bin of whole pixels (Fast R-CNN, section 2.1)."""
    height, width = features.shape[-2:]
    pooled = features.new_zeros(len(rois), features.shape[1], *size)
    for k, roi in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (math.floor(value * scale + 0.5) for value in roi[1:])
        bins = (max(y2 - y1 + 1, 1) / size[0], max(x2 - x1 + 1, 1) / size[1])
        for i in range(size[0]):
            for j in range(size[1]):
                rows = [
                    min(max(edge + y1, 0), height) for edge in (math.floor(i * bins[0]), math.ceil((i + 1) * bins[0]))
                ]
                columns = [
                    min(max(edge + x1, 0), width) for edge in (math.floor(j * bins[1]), math.ceil((j + 1) * bins[1]))
                ]
                cell = features[int(roi[0]), :, rows[0] : rows[1], columns[0] : columns[1]]
                if cell.numel():
                    pooled[k, :, i, j] = cell.flatten(1).max(dim=1).values
    return pooled


@pytest.mark.skipif(COMPILED and not torch.cuda.is_available(), reason="mmcv's own is for GPUs alone")
def test_roi_pool(generator):
    features = torch.randn(2, 3, 18, 16, generator=generator).requires_grad_()
    rois = some_rois(5, generator)
    pooled = RoIPool((3, 2), 0.25)(features, rois)
    weights = torch.randn(pooled.shape, generator=generator)
    (grad,) = torch.autograd.grad((pooled * weights).sum(), features)
    expected = roi_pool_of_paper(features, rois, (3, 2), 0.25)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), features)
    assert torch.equal(pooled, expected)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype, generator):
    """What autocast hands over: computed in float32 and rounded once."""
    features, rois = torch.randn(2, 3, 18, 16, generator=generator).to(dtype), some_rois(5, generator)
    half, full = features.clone().requires_grad_(), features.float().requires_grad_()
    for x in (half, full):
        output = torch.zeros(5, 3, 3, 2, dtype=x.dtype)
        mmcv_operators.roi_align_forward(
            x.detach(), rois, output, None, None, 3, 2, 0.25, sampling_ratio=0, pool_mode=1, aligned=True
        )
        grad = torch.zeros_like(x)
        mmcv_operators.roi_align_backward(
            output, rois, None, None, grad, 3, 2, 0.25, sampling_ratio=0, pool_mode=1, aligned=True
        )
        x.grad, x.pooled = grad, output
    assert torch.equal(half.pooled, full.pooled.to(dtype))
    torch.testing.assert_close(half.grad.float(), full.grad, rtol=0.05, atol=0.05)
    boxes, scores = some_boxes(30, generator).to(dtype), torch.rand(30, generator=generator).to(dtype)
    kept = mmcv_operators.nms(boxes, scores, iou_threshold=0.5, offset=0)
    assert torch.equal(kept, mmcv_operators.nms(boxes.float(), scores.float(), iou_threshold=0.5, offset=0))


def test_no_boxes():
    features = torch.randn(2, 3, 8, 8).requires_grad_()
    for layer in (RoIAlign((2, 2)), RoIPool((2, 2))):
        if isinstance(layer, RoIPool) and COMPILED and not torch.cuda.is_available():
            continue
        pooled = layer(features, torch.zeros(0, 5))
        assert pooled.shape == (0, 3, 2, 2)
        (grad,) = torch.autograd.grad(pooled.sum(), features)
        assert grad.shape == features.shape and not grad.any()


# ----------------------------------------------------------------------------------------------------- focal loss
def focal_loss_of_paper(logits, targets, gamma, alpha):
    """-alpha_t (1 - p_t)^gamma log p_t (RetinaNet, equation 5)."""
    loss = torch.zeros_like(logits)
    for n, target in enumerate(targets.tolist()):
        for c in range(logits.shape[1]):
            p = torch.sigmoid(logits[n, c])
            p_t, alpha_t = (p, alpha) if c == target else (1 - p, 1 - alpha)
            loss[n, c] = -alpha_t * (1 - p_t) ** gamma * p_t.log()
    return loss


@pytest.mark.skipif(COMPILED and not torch.cuda.is_available(), reason="mmcv's own is for GPUs alone")
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('count', [0, 6])
def test_focal_loss(count, weighted, generator):
    logits = torch.randn(count, 3, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.arange(count) % 4  # 3: background
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64) if weighted else None
    loss = sigmoid_focal_loss(logits, targets, 2.0, 0.25, weight, 'sum')
    (grad,) = torch.autograd.grad(loss, logits)
    rows = torch.tensor([0.5, 2.0, 3.0, 1.0], dtype=torch.float64)[targets, None] if weighted else 1.0
    expected = (focal_loss_of_paper(logits, targets, 2.0, 0.25) * rows).sum() + 0 * logits.sum()
    (expected_grad,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, expected_grad)


# --------------------------------------------------------------------------------------------- which one is in use
@pytest.mark.skipif(not COMPILED, reason='mmcv has no compiled operators here')
@pytest.mark.parametrize('count', [0, 1, 10, 300, 3000])
def test_equals_the_compiled_operators(count, generator):
    import mmcv._ext as compiled

    boxes, scores = some_boxes(count, generator, 300.0), torch.rand(count, generator=generator)
    for threshold in (0.3, 0.5, 0.7):
        for offset in (0, 1):
            settings = dict(iou_threshold=threshold, offset=offset)
            assert torch.equal(mmcv_operators.nms(boxes, scores, **settings), compiled.nms(boxes, scores, **settings))
    features, rois = torch.randn(2, 4, 40, 36, generator=generator), some_rois(min(count, 300), generator)
    for aligned in (True, False):
        for samples in (0, 2):
            results = []
            for module in (mmcv_operators, compiled):
                output, grad, empty = torch.zeros(len(rois), 4, 7, 7), torch.zeros_like(features), torch.zeros(0)
                settings = dict(
                    aligned_height=7,
                    aligned_width=7,
                    spatial_scale=0.5,
                    sampling_ratio=samples,
                    pool_mode=1,
                    aligned=aligned,
                )
                module.roi_align_forward(features, rois, output, empty, empty, **settings)
                module.roi_align_backward(output, rois, empty, empty, grad, **settings)
                results.append((output, grad))
            for ours, theirs in zip(*results, strict=True):
                assert torch.equal(ours, theirs)


@pytest.mark.skipif(COMPILED, reason='mmcv has its compiled operators here')
def test_other_operators_raise_when_called():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(NotImplementedError, match=r'^softnms is one of .*mmstvit.check_env` gives the command[^\n]*$'):
        soft_nms(boxes, torch.tensor([0.9]))
    with pytest.raises(NotImplementedError, match=r"^roi_align with pool_mode='max' is one of"):
        RoIAlign((2, 2), pool_mode='max')(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5))


def test_compiled_operators_are_not_shadowed(tmp_path, monkeypatch):
    """A file of that name in mmcv's folder is what Python finds, also where it does not import."""
    import mmcv

    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    monkeypatch.setattr(mmcv, '__path__', [str(tmp_path), *mmcv.__path__])
    (tmp_path / '_ext.py').write_text('raise ImportError("undefined symbol")')
    assert importlib.util.find_spec('mmcv._ext').origin == str(tmp_path / '_ext.py')


# ------------------------------------------------------------------------------------------------ mmdet's detectors
NAMES = ('mask-rcnn_r50_fpn', 'cascade-mask-rcnn_r50_fpn', 'faster-rcnn_r50_fpn', 'retinanet_r50_fpn')


def narrow(name, backbone):
    """A detector of mmdet's own configs, with few channels and few proposals."""
    from mmengine.config import Config

    cfg = Config.fromstring(f"_base_ = ['mmdet::_base_/models/{name}.py']", '.py').model
    indices = (1, 2, 3) if 'retinanet' in name else (0, 1, 2, 3)  # RetinaNet takes no features of stride 4
    if backbone == 'swin':
        settings = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4)
        cfg.backbone = dict(type='SwinTransformer', out_indices=indices, **settings)
    else:
        cfg.backbone = dict(type='ResNet', depth=18, base_channels=8, norm_eval=True, out_indices=indices)
    cfg.neck.update(in_channels=[8 * 2**i for i in indices], out_channels=16, start_level=0)
    if 'retinanet' in name:
        cfg.bbox_head.update(in_channels=16, feat_channels=16, num_classes=3)
        return cfg
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    heads = cfg.roi_head
    heads.bbox_roi_extractor.out_channels = 16
    for head in heads.bbox_head if isinstance(heads.bbox_head, list) else [heads.bbox_head]:
        head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    if 'mask_head' in heads:
        heads.mask_roi_extractor.out_channels = 16
        heads.mask_head.update(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=3)
    cfg.train_cfg.rpn_proposal.max_per_img = cfg.test_cfg.rpn.max_per_img = 20
    return cfg


@pytest.fixture(scope='module', params=[(name, backbone) for name in NAMES for backbone in ('resnet', 'swin')])
def detector(request):
    """A detector and a batch of two images, of which one has no box."""
    pytest.importorskip('mmdet')
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.registry import MODELS, DefaultScope
    from mmengine.structures import InstanceData

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(narrow(*request.param))
    samples = []
    for boxes in ([[8, 8, 40, 40], [20, 10, 60, 50]], []):
        sample = DetDataSample(
            metainfo=dict(img_shape=(128, 128), ori_shape=(128, 128), scale_factor=(1, 1), batch_input_shape=(128, 128))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.arange(len(boxes)),
            masks=BitmapMasks(np.ones((len(boxes), 128, 128), dtype=np.uint8), 128, 128),
        )
        samples.append(sample)
    images = [torch.randint(0, 255, (3, 128, 128), dtype=torch.uint8) for _ in samples]
    return SimpleNamespace(model=model, data=dict(inputs=images, data_samples=samples))


@pytest.mark.parametrize('dtype', [None, pytest.param(torch.bfloat16, marks=NO_HALF)])
def test_detectors_of_mmdet(detector, dtype):
    """A training step that reaches every head, and a prediction, also under autocast."""
    model, data = detector.model, copy.deepcopy(detector.data)
    model.train()
    with torch.autocast('cpu', dtype=dtype, enabled=dtype is not None):
        losses = model(**model.data_preprocessor(data, True), mode='loss')
    total = sum(loss if torch.is_tensor(loss) else sum(loss) for name, loss in losses.items() if 'loss' in name)
    assert torch.isfinite(total)
    model.zero_grad()
    total.backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == [] and all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.eval()
    model.test_cfg.get('rcnn', model.test_cfg).score_thr = 0.0
    with torch.no_grad(), torch.autocast('cpu', dtype=dtype, enabled=dtype is not None):
        results = model.test_step(copy.deepcopy(detector.data))
    for result in results:
        found = result.pred_instances
        assert 0 < len(found) <= 100 and found.bboxes.shape == (len(found), 4)
        assert torch.isfinite(found.bboxes.float()).all() and ((found.scores >= 0) & (found.scores <= 1)).all()
        if 'masks' in found:
            assert found.masks.shape == (len(found), 128, 128)
