"""Predictions as JSON, as a line, as a picture. The toolboxes draw."""

import functools
import pkgutil
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.image import imread
from torch import Tensor

from ..compat.requires import require
from ..visualization.colours import distinct_colours
from ..visualization.fonts import choose_fonts
from .models import classes_of

THRESHOLD = 0.3  # least score of an object that is reported
_LARGEST = 5  # areas of a label map in a line
_OPACITY = 0.5  # of the colours of areas


def record(result: Any, scope: str, model: Any, threshold: float = THRESHOLD, topk: int = 1) -> dict[str, Any]:
    """Return a prediction in JSON's types.

    Args:
        result: of :func:`mmstvit.inference_model`.
        scope: the toolbox.
        model: whose it is, or anything else with its ``dataset_meta``.
        threshold: least score of an object, of a detector.
        topk: number of classes in ``top``, of a classifier.

    Returns:
        ``pred_class``, ``pred_label``, ``pred_score`` and ``pred_scores`` of all classes; with ``topk`` above 1 also
        ``top``, the best classes with ``class``, ``label`` and ``score``; where a network gives several labels to an
        image ``pred_labels`` and ``pred_classes``, which may be none. Of a detector ``objects``,
        best first, each with ``class``, ``label``, ``score``, ``box`` (left, top, right, bottom in pixels) and, where
        there is one, ``mask`` as COCO's run-length code. Of a segmentor ``areas`` of the classes that there are,
        largest first, each with ``class``, ``label``, ``share`` of the pixels and ``mask``.
    """
    if scope == 'mmdet':
        return dict(objects=_objects(result, model, threshold))
    if scope == 'mmseg':
        return dict(areas=_areas(result.pred_sem_seg.data, model))
    if scope == 'mmaction':
        result = of_scores(result.pred_score, classes_of(model))
    scores, names = [float(score) for score in result['pred_scores']], classes_of(model)
    prediction = dict(
        pred_class=str(result.get('pred_class', result['pred_label'])),
        pred_label=int(result['pred_label']),
        pred_score=float(result['pred_score']),
        pred_scores=scores,
    )
    if topk > 1:
        best = sorted(range(len(scores)), key=lambda label: -scores[label])[:topk]
        prediction['top'] = [{'class': _name(names, i), 'label': i, 'score': scores[i]} for i in best]
    if 'pred_labels' in result:
        prediction['pred_labels'] = list(result['pred_labels'])
        prediction['pred_classes'] = [_name(names, label) for label in result['pred_labels']]
    return prediction


def of_scores(scores: Any, names: Sequence[str] | None) -> dict[str, Any]:
    """Return what mmpretrain says of an image, from the scores of the classes."""
    label = int(scores.argmax())
    return dict(pred_label=label, pred_score=float(scores[label]), pred_scores=scores, pred_class=_name(names, label))


def _name(names: Sequence[str] | None, label: int) -> str:
    return str(names[label]) if names else str(label)


def _objects(sample: Any, model: Any, threshold: float) -> list[dict]:
    from mmdet.structures.mask import encode_mask_results

    instances, classes = sample.pred_instances.cpu(), classes_of(model)
    instances = instances[instances.scores >= threshold]
    masks = encode_mask_results(instances.masks.numpy()) if 'masks' in instances else [None] * len(instances)
    columns = (instances.labels.tolist(), instances.scores.tolist(), instances.bboxes.tolist())
    objects = []
    for label, score, box, mask in zip(*columns, masks, strict=True):
        one = {'class': _name(classes, label), 'label': label, 'score': score, 'box': box}
        if mask is not None:
            one['mask'] = dict(size=list(mask['size']), counts=mask['counts'].decode())
        objects.append(one)
    return sorted(objects, key=lambda one: -one['score'])


def _areas(labels: Tensor, model: Any) -> list[dict]:
    """Return the areas of a label map (1, H, W)."""
    mask_of = require('pycocotools.mask', 'seg', 'masks of areas').encode
    places, classes, areas = labels[0].cpu().numpy(), classes_of(model), []
    for label in np.unique(places).astype(int).tolist():
        mask = places == label
        code = mask_of(np.asfortranarray(mask, dtype=np.uint8))
        rle = dict(size=list(code['size']), counts=code['counts'].decode())
        areas.append({'class': _name(classes, label), 'label': label, 'share': float(mask.mean()), 'mask': rle})
    return sorted(areas, key=lambda one: -one['share'])


def as_line(prediction: dict) -> str:
    """Return a :func:`record` as a line."""
    if 'error' in prediction:
        return 'could not be read'
    if 'pred_classes' in prediction:
        return ', '.join(prediction['pred_classes']) or 'no class'
    if 'top' in prediction:
        return ', '.join(f'{one["class"]} {one["score"]:.1%}' for one in prediction['top'])
    if 'areas' in prediction:
        shown = [f'{one["class"]} {one["share"]:.0%}' for one in prediction['areas'][:_LARGEST]]
        return ', '.join(shown) + (' ...' if len(prediction['areas']) > _LARGEST else '')
    if 'objects' not in prediction:
        return f'{prediction["pred_class"]} {prediction["pred_score"]:.1%}'
    names = [one['class'] for one in prediction['objects']]
    return ', '.join(f'{names.count(name)} x {name}' for name in dict.fromkeys(names)) or 'nothing'


@functools.lru_cache(maxsize=1)
def _visualizer(scope: str) -> Any:
    """Return the toolbox's visualizer, one for all files: each has figures of its own."""
    name = {'mmdet': 'DetLocalVisualizer', 'mmseg': 'SegLocalVisualizer', 'mmpretrain': 'UniversalVisualizer'}[scope]
    kind = pkgutil.resolve_name(f'{scope}.visualization:{name}')
    return kind(alpha=_OPACITY) if scope == 'mmseg' else choose_fonts(kind())  # the former writes with OpenCV


def draw_prediction(
    result: Any, prediction: dict, scope: str, model: Any, threshold: float, image: np.ndarray | None = None
) -> np.ndarray:
    """Draw a prediction on its image, or above frames of its clip.

    Args:
        result: of :func:`mmstvit.inference_model`.
        prediction: its :func:`record`, with the ``file`` that it is of.
        scope: the toolbox.
        model: whose it is.
        threshold: least score of an object, of a detector.
        image: it, (height, width, 3), uint8 RGB, in the place of the file.

    Returns:
        The picture, uint8 RGB.
    """
    if scope == 'mmaction':
        from ..visualization.clips import read_strip

        return read_strip(prediction['file'], as_line(prediction))[..., ::-1]
    visualizer = _visualizer(scope)
    image = imread(prediction['file'], channel_order='rgb') if image is None else np.ascontiguousarray(image)
    if scope == 'mmdet':
        names = classes_of(model) or ()
        palette = [tuple(colour) for colour in distinct_colours(len(names)).tolist()] if names else None
        visualizer.dataset_meta = dict(model.dataset_meta, palette=palette)
        visualizer.add_datasample('', image, result, draw_gt=False, pred_score_thr=threshold)
    elif scope == 'mmseg':
        # A number stands for a name that is not known.
        names = classes_of(model) or tuple(map(str, range(model.num_classes)))
        palette = (model.dataset_meta or {}).get('palette')
        if palette is None or len(palette) != len(names):
            palette = distinct_colours(len(names)).tolist()
        visualizer.dataset_meta = dict(classes=names, palette=palette)
        visualizer.add_datasample('', image, result, draw_gt=False)
    else:
        from mmpretrain.structures import DataSample

        sample = DataSample().set_pred_label(result['pred_label']).set_pred_score(result['pred_scores'])
        factor = max(1, 256 / max(image.shape))
        visualizer.visualize_cls(image, sample, classes=classes_of(model), draw_gt=False, rescale_factor=factor)
    return visualizer.get_image()
