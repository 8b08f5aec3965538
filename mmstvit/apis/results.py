"""What was found in a file: as JSON, as a line, as a picture. The toolboxes draw."""

import functools
from typing import Any

import numpy as np
import torch.nn as nn
from mmcv.image import imread

from ..visualization.clips import read_strip
from .weights import classes_of

THRESHOLD = 0.3  # least score of an object that is told


def record(result: Any, scope: str, model: nn.Module, threshold: float = THRESHOLD) -> dict[str, Any]:
    """A prediction in JSON's types.

    Args:
        result: of :func:`mmstvit.inference_model`.
        scope: the toolbox.
        model: whose it is.
        threshold: least score of an object, of a detector.

    Returns:
        ``pred_class``, ``pred_label``, ``pred_score`` and ``pred_scores`` of all classes; of a detector ``objects``,
        best first, each with ``class``, ``label``, ``score``, ``box`` (left, top, right, bottom in pixels) and, where
        there is one, ``mask`` as COCO's run-length code.
    """
    if scope == 'mmdet':
        return dict(objects=_objects(result, model, threshold))
    if scope == 'mmaction':
        scores, classes = result.pred_score, classes_of(model)
        label = int(scores.argmax())
        result = dict(pred_label=label, pred_score=float(scores[label]), pred_scores=scores)
        result['pred_class'] = classes[label] if classes else str(label)
    return dict(
        pred_class=str(result.get('pred_class', result['pred_label'])),
        pred_label=int(result['pred_label']),
        pred_score=float(result['pred_score']),
        pred_scores=result['pred_scores'].tolist(),
    )


def _objects(sample: Any, model: nn.Module, threshold: float) -> list[dict]:
    from mmdet.structures.mask import encode_mask_results

    found, classes = sample.pred_instances.cpu(), classes_of(model)
    found = found[found.scores >= threshold]
    masks = encode_mask_results(found.masks.numpy()) if 'masks' in found else [None] * len(found)
    objects = []
    for label, score, box, mask in zip(found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist(), masks):
        one = {'class': classes[label] if classes else str(label), 'label': label, 'score': score, 'box': box}
        if mask is not None:
            one['mask'] = dict(size=list(mask['size']), counts=mask['counts'].decode())
        objects.append(one)
    return sorted(objects, key=lambda one: -one['score'])


def shown(found: dict) -> str:
    """A record for reading."""
    if 'error' in found:
        return 'could not be read'
    if 'objects' not in found:
        return f'{found["pred_class"]} {found["pred_score"]:.1%}'
    names = [one['class'] for one in found['objects']]
    return ', '.join(f'{names.count(name)} x {name}' for name in dict.fromkeys(names)) or 'nothing'


@functools.lru_cache(maxsize=1)
def _visualizer(scope: str) -> Any:
    """The toolbox's, for all files: each has figures of its own."""
    if scope == 'mmdet':
        from mmdet.visualization import DetLocalVisualizer as Visualizer
    else:
        from mmpretrain.visualization import UniversalVisualizer as Visualizer
    return Visualizer()


def drawn(result: Any, found: dict, scope: str, model: nn.Module, threshold: float) -> np.ndarray:
    """A prediction on its image, or above frames of its clip.

    Args:
        result: of :func:`mmstvit.inference_model`.
        found: its :func:`record`, with the ``file`` that it is of.
        scope: the toolbox.
        model: whose it is.
        threshold: least score of an object, of a detector.

    Returns:
        The picture, uint8 RGB.
    """
    if scope == 'mmaction':
        return read_strip(found['file'], shown(found))[..., ::-1]
    image, visualizer = imread(found['file'], channel_order='rgb'), _visualizer(scope)
    if scope == 'mmdet':
        visualizer.dataset_meta = model.dataset_meta
        visualizer.add_datasample('', image, result, draw_gt=False, pred_score_thr=threshold)
        return visualizer.get_image()
    from mmpretrain.structures import DataSample

    sample = DataSample().set_pred_label(result['pred_label']).set_pred_score(result['pred_scores'])
    factor = max(1, 256 / max(image.shape))
    visualizer.visualize_cls(image, sample, classes=classes_of(model), draw_gt=False, rescale_factor=factor)
    return visualizer.get_image()
