"""Let mmdet's COCO metrics score what the data set holds: one checked file for both, and all that counts in it."""

import inspect
import math
import os.path
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.fileio import get_local_path
from mmengine.registry import METRICS

from ..errors import UsageError, one_line
from ..paths import is_address
from ..registry import resolve_type
from .coco import fill
from .coco_file import name_of, read_coco
from .datasets import with_inner
from .terminal import warn


def checked_metrics(evaluator: Any) -> Any:
    """Rewrite the config of an evaluator so that its metrics are built by :func:`build_metric`."""
    if isinstance(evaluator, (list, tuple)):
        return [checked_metrics(metric) for metric in evaluator]
    if not isinstance(evaluator, dict):
        return evaluator
    if 'metrics' in evaluator:
        return dict(evaluator, metrics=checked_metrics(evaluator['metrics']))
    return dict(type=build_metric, metric=evaluator)


def build_metric(metric: dict) -> Any:
    """Build a metric; a ``CocoMetric`` of mmdet reads its annotation file, if any, with the checks of the data sets.

    Raises:
        UsageError: as :func:`.read_coco`.
    """
    kind, file = resolve_type(metric.get('type'), METRICS, metric.get('_scope_')), metric.get('ann_file')
    module = sys.modules.get('mmdet.evaluation.metrics.coco_metric')
    if not (module and inspect.isclass(kind) and issubclass(kind, module.CocoMetric)):
        if file:
            _warn_unchecked(kind, file)
        return METRICS.build(metric)
    # A class derived from it may do more with its file than read it.
    built = METRICS.build(dict(metric, ann_file=None) if kind is module.CocoMetric else metric)
    if getattr(built, 'classwise', False):
        built.compute_metrics = partial(_by_kind, built, built.compute_metrics)
    if not file:  # what is true comes with the samples
        return built
    # That of LVIS has a reader beside it.
    if type(built._coco_api) not in (type(None), module.COCO) or hasattr(built, '_lvis_api'):
        _warn_unchecked(kind, file)
    else:
        try:
            with get_local_path(file, backend_args=built.backend_args) as path:
                content = read_coco(path)
        except OSError as error:
            raise UsageError(f'{file}: the file of the evaluator cannot be read: {one_line(error)}') from error
        if metric.get('sort_categories'):
            content = dict(content, categories=sorted(content['categories'], key=lambda category: category['id']))
        built._coco_api = module.COCO()
        fill(built._coco_api, file, content)
    return built


def _warn_unchecked(kind: Any, file: str) -> None:
    warn(
        f'{getattr(kind, "__name__", kind)} reads {file} by itself: whether it is the file of the data set is not '
        'checked, nor are its ids, categories, crowds and boxes, as they are for CocoMetric'
    )


def _by_kind(metric: Any, compute: Callable[[list], dict], results: list) -> dict:
    """Compute the kinds of a metric one after the other, whose names of a class's AP would be the same in mmdet."""
    kinds, together = metric.metrics, {}
    for kind in kinds:
        metric.metrics = [kind]
        values = compute(results)
        together.update({f'{kind}_{key}' if key.endswith('_precision') else key: v for key, v in values.items()})
    metric.metrics = kinds
    return together


def check_evaluation(loop: Any, key: str) -> Any:
    """Check, before a loop runs, that its metrics score the annotations of its data set.

    Args:
        loop: a built loop, or one that has no evaluator.
        key: of its evaluator in the config.

    Returns:
        The loop.

    Raises:
        UsageError: they read another file, or there is nothing to score in it.
    """
    evaluator = getattr(loop, 'evaluator', None)
    if not isinstance(evaluator, Evaluator):
        return loop
    sets = list(_coco_sets(loop.dataloader.dataset))
    # mmdet's evaluator of several data sets has a metric for each.
    each = hasattr(evaluator, 'dataset_prefixes') and len(sets) == len(evaluator.metrics)
    for i, metric in enumerate(evaluator.metrics):
        coco: Any = getattr(metric, '_coco_api', None)
        if getattr(coco, 'file', None):
            own = sets[i : i + 1] if each else sets
            _check_file(coco.file, [part.ann_file for part in own], key)
            if len(own) == 1 and len(own[0]) != len(coco.imgs):  # of indices
                metric.img_ids = [own[0].get_data_info(j)['img_id'] for j in range(len(own[0]))]
            if not metric.format_only:
                classes = own[0].metainfo['classes'] if own else (metric.dataset_meta or {}).get('classes', ())
                _check_scored(coco, metric, classes)
    return loop


def _coco_sets(dataset: Any) -> Iterator[Any]:
    base: Any = getattr(sys.modules.get('mmdet.datasets.coco'), 'CocoDataset', ())
    # Instances are scored against another file than the panoptic one of a data set.
    for part in with_inner(dataset):
        if isinstance(part, base) and part.COCOAPI is base.COCOAPI:
            yield part


def _check_file(file: str, files: list[str], key: str) -> None:
    same = [_real(file) == _real(other) for other in files]
    if len(files) == 1 and not all(same):
        raise UsageError(
            f'the evaluator would score against {file} what is predicted for {files[0]}: give both the same file, '
            f'e.g. with --cfg-options {key}.ann_file={files[0]}'
        )
    if len(files) > 1 and any(same) and not all(same):
        raise UsageError(
            f'the evaluator would score against {file} what is predicted for {len(files)} files: take '
            'MultiDatasetsEvaluator, with a metric for each'
        )


def _real(file: str) -> str:
    return file if is_address(file) else os.path.realpath(file)


def _check_scored(coco: Any, metric: Any, classes: list[str]) -> None:
    """Refuse annotations that cannot be scored, and let those outside their images not count."""
    images = coco.imgs.keys() if metric.img_ids is None else {*metric.img_ids}
    categories = {*coco.get_cat_ids(cat_names=classes)}
    outside, scored, needs_mask = [], 0, 'segm' in metric.metrics
    for annotation in coco.dataset.get('annotations', ()):
        if annotation['image_id'] not in images or annotation['category_id'] not in categories:
            continue
        image = coco.imgs[annotation['image_id']]
        fault = _fault(annotation, needs_mask)
        if fault:
            name = image.get('file_name', image['id'])
            raise UsageError(f'{coco.file}: image {name}: {name_of(annotation)} {fault}')
        x, y, width, height = annotation['bbox']
        right, bottom = image.get('width', math.inf), image.get('height', math.inf)
        if x >= right or y >= bottom or x + width <= 0 or y + height <= 0:
            # No detector can find it: to COCO such things are crowds, which do not count.
            annotation['iscrowd'] = 1
            outside.append(annotation)
        scored += not annotation['iscrowd']
    if outside:
        warn(
            f'{coco.file}: {len(outside)} annotations do not count, whose boxes are outside their images: the first is '
            f'{name_of(outside[0])}'
        )
    if not scored:
        raise UsageError(
            f'{coco.file}: no annotation can be scored: in the images that are tested there is none of the classes of '
            'the config, or all are crowds (iscrowd=1)'
        )


def _fault(annotation: dict, needs_mask: bool) -> str | None:
    if 'bbox' not in annotation:
        return 'has no bbox'
    if min(annotation['bbox'][2:]) <= 0:
        return f'has the bbox {annotation["bbox"]}, of no width or height: mend it, or leave it out'
    if needs_mask and not annotation.get('segmentation'):
        return "has no segmentation of three points or more: leave it out, or score boxes alone with metric='bbox'"
    return None
