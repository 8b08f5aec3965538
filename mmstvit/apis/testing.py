"""What a test reports beside its metrics: figures of each class, the confusion matrix, and all predictions."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData

from ..compat.requires import require
from ..engine.datasets import innermost
from ..errors import UsageError
from ..io.files import json_types
from ..registry import entries_of, is_type, resolve_type, type_name
from .results import of_scores, record
from .rows import RowFile, write_csv

OUTPUTS = ('.json', '.csv', '.jsonl', '.pkl')
_MATRIX = 'confusion_matrix'  # the prefix of the toolboxes' metric
_AVERAGE = 'mean'  # of the classes, in the last row


class PredictionRows(BaseMetric):
    """Write what is predicted, a line of JSON for each sample in the form of :func:`.record`, and no metric.

    Objects are those that the metrics score, of any score. Beside the prediction there is the truth of a classifier's
    sample, ``gt_label`` and ``gt_class``. ``file`` is the number of a sample that has no file.

    Args:
        path: the file, ``*.jsonl``.
        scope: the toolbox.
        several: whether an image has several labels.
    """

    def __init__(self, path: str, scope: str, several: bool = False) -> None:
        super().__init__()
        self.path, self.scope, self.several = path, scope, several

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Turn the samples of a batch into rows."""
        self.results.extend(self._row(sample) for sample in data_samples)

    def _row(self, sample: dict) -> dict[str, Any]:
        names = (key for key in ('img_path', 'filename', 'frame_dir', 'sample_idx', 'img_id') if key in sample)
        row = dict(file=sample[key] if (key := next(names, None)) else None)
        if self.scope == 'mmseg':
            labels = PixelData(data=sample['pred_sem_seg']['data'])
            return {**row, **record(SimpleNamespace(pred_sem_seg=labels), 'mmseg', self)}
        if self.scope == 'mmdet':
            instances = InstanceData(**sample['pred_instances'])
            return {**row, **record(SimpleNamespace(pred_instances=instances), 'mmdet', self, 0.0)}
        classes = (self.dataset_meta or {}).get('classes')
        result = of_scores(sample['pred_score'].float(), classes)
        truth = sample['gt_label'].flatten().tolist()
        if self.several:
            result['pred_labels'] = sample['pred_label'].tolist()
        row.update(record(result, 'mmpretrain', self))
        row['gt_label'] = truth if self.several else truth[0]
        named = [str(classes[label]) if classes else str(label) for label in truth]
        row['gt_class'] = named if self.several else named[0]
        return json_types(row)

    def compute_metrics(self, results: list) -> dict:
        """Write the rows, in the order of the data set."""
        with RowFile(self.path, self.scope) as file:
            for row in results:
                file.write(row)
        return {}


class PixelMatrix(BaseMetric):
    """How often pixels of each class were predicted as which, (classes, classes), true classes in rows.

    Args:
        ignore_index: label of pixels that do not count.
    """

    default_prefix = _MATRIX

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch."""
        number = len(self.dataset_meta['classes'])
        for sample in data_samples:
            true, predicted = (sample[key]['data'].flatten().cpu().long() for key in ('gt_sem_seg', 'pred_sem_seg'))
            counted = true != self.ignore_index
            pairs = number * true[counted] + predicted[counted]
            self.results.append(pairs.bincount(minlength=number**2).reshape(number, number).numpy())

    def compute_metrics(self, results: list) -> dict:
        """Add the counts up."""
        return dict(result=np.sum(results, axis=0))


def add_reports(cfg: Config, outs: Sequence[str], per_class: bool, matrix: bool) -> None:
    """Let the test of a config collect what is to be reported.

    Args:
        cfg: of any toolbox; its ``test_evaluator`` is changed.
        outs: the files that are written, whose endings, of ``OUTPUTS``, say what goes into each.
        per_class: whether figures of each class are wanted.
        matrix: whether the confusion matrix is.

    Raises:
        UsageError: there is nothing of the kind for this config.
    """
    if per_class or matrix:
        _collect_classes(cfg, matrix)
    for out in outs:
        if out.endswith('.jsonl'):
            _keep_names(cfg)
            _add_metric(cfg, type=PredictionRows, path=out, scope=cfg.default_scope, several=_has_several_labels(cfg))
        elif out.endswith('.pkl'):
            # mmdet's own packs masks as RLE; the others use mmengine's.
            kind = 'mmdet.DumpDetResults' if cfg.default_scope == 'mmdet' else 'mmengine.DumpResults'
            _add_metric(cfg, type=kind, out_file_path=out)


def _add_metric(cfg: Config, **metric: Any) -> None:
    cfg.test_evaluator = [*entries_of(cfg.test_evaluator), ConfigDict(metric)]


def _collect_classes(cfg: Config, matrix: bool) -> None:
    """Let figures of classes be computed: a confusion matrix, of images or of pixels, or mmdet's AP of each class."""
    if cfg.default_scope == 'mmdet':
        if matrix:
            raise UsageError('--confusion-matrix is not for detectors: leave it out, --per-class gives their AP')
        metrics = [metric for metric in entries_of(cfg.test_evaluator) if type_name(metric) == 'CocoMetric']
        if not metrics:
            raise UsageError('--per-class needs a CocoMetric as test_evaluator in mmdet')
        for metric in metrics:
            metric.classwise = True
        return
    if cfg.default_scope == 'mmseg':
        ignored = [metric.get('ignore_index', 255) for metric in entries_of(cfg.test_evaluator)]
        _add_metric(cfg, type=PixelMatrix, ignore_index=ignored[0])
        return
    if _has_several_labels(cfg):
        raise UsageError('--per-class and --confusion-matrix are for networks that give one label to an image')
    if _matrix_key(cfg) is None:
        _add_metric(cfg, type=f'{cfg.default_scope}.ConfusionMatrix')


def _has_several_labels(cfg: Config) -> bool:
    """Return whether the classifier of a config gives several labels to an image."""
    if cfg.default_scope != 'mmpretrain':
        return False
    from mmpretrain.models import MultiLabelClsHead

    return is_type((cfg.model.get('head') or {}).get('type'), MultiLabelClsHead, MODELS, cfg.default_scope)


def _matrix_key(cfg: Config) -> str | None:
    """Return the name of the confusion matrix among the metrics."""
    own = [m for m in entries_of(cfg.test_evaluator) if type_name(m) in ('ConfusionMatrix', PixelMatrix.__name__)]
    return f'{own[0].get("prefix") or _MATRIX}/result' if own else None


def _keep_names(cfg: Config) -> None:
    """Let clips keep the names of their files, which mmaction2 drops when it packs them."""
    if cfg.default_scope != 'mmaction':
        return
    from mmaction.datasets.transforms import PackActionInputs
    from mmaction.registry import TRANSFORMS

    default = PackActionInputs().meta_keys
    for _, dataset in innermost(cfg.test_dataloader.dataset, ''):
        for step in dataset['pipeline']:
            if resolve_type(step.get('type'), TRANSFORMS, 'mmaction') is PackActionInputs:
                step.meta_keys = (*step.get('meta_keys', default), 'filename', 'frame_dir')


def report_of(
    cfg: Config, metrics: dict[str, Any], classes: Sequence[str] | None
) -> tuple[list[list], np.ndarray | None]:
    """Return the figures of each class that a test has given.

    Args:
        cfg: of the test, after :func:`add_reports`.
        metrics: what the test has returned.
        classes: names of the classes; numbers stand for them where there are none.

    Returns:
        Rows: the names of the columns, then figures of each class, and last the mean of all. And the matrix (classes,
        classes), how often each class (row) was predicted as which (column); ``None`` of a detector.
    """
    if cfg.default_scope == 'mmdet':
        return average_precisions(metrics, classes or ()), None
    matrix = np.asarray(metrics[str(_matrix_key(cfg))])
    rows = class_figures(matrix, [str(name) for name in classes or range(len(matrix))])
    return with_overlap(rows, matrix) if cfg.default_scope == 'mmseg' else rows, matrix


def class_figures(matrix: np.ndarray, classes: Sequence[str]) -> list[list]:
    """Compute precision, recall, F1 and support of each class, from 0 to 1, by scikit-learn.

    Args:
        matrix: (classes, classes), how often each class (row) was predicted as which (column).
        classes: their names.

    Returns:
        The names of the columns, a row for each class, and a last one with the unweighted means. A class that is never
        predicted has precision 0, one without samples recall 0.
    """
    metrics = require('sklearn.metrics', 'analysis', 'figures of each class')
    true, predicted = np.indices(matrix.shape).reshape(2, -1)
    figures = metrics.precision_recall_fscore_support(
        true, predicted, labels=range(len(matrix)), sample_weight=matrix.ravel(), zero_division=0
    )
    columns = [figure.tolist() for figure in figures[:3]]
    support = matrix.sum(1).tolist()
    means = [float(np.mean(column)) for column in columns]
    rows = [list(row) for row in zip(classes, *columns, support, strict=True)]
    return [['class', 'precision', 'recall', 'f1', 'support'], *rows, [_AVERAGE, *means, sum(support)]]


def with_overlap(rows: list[list], matrix: np.ndarray) -> list[list]:
    """Add the IoU of each class to its figures, in the second column; their mean is of the classes that there are.

    Args:
        rows: of :func:`class_figures`.
        matrix: of pixels, as there.
    """
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    overlap = np.divide(matrix.diagonal(), union, out=np.full(len(matrix), np.nan), where=union > 0).tolist()
    column = ['IoU', *overlap, float(np.nanmean(overlap))]
    return [[name, value, *others] for value, (name, *others) in zip(column, rows, strict=True)]


def average_precisions(metrics: dict[str, Any], classes: Sequence[str]) -> list[list]:
    """Return the AP of each class, by the kinds of COCO's metric, from mmdet's classwise results.

    A class without objects has NaN.
    """
    kinds = [kind for kind in ('bbox', 'segm') if any(key.endswith(f'/{kind}_mAP') for key in metrics)]

    def value(ending: str) -> float:
        return next(float(value) for key, value in metrics.items() if key.endswith(f'/{ending}'))

    rows = [[name, *(value(f'{kind}_{name}_precision') for kind in kinds)] for name in classes]
    return [['class', *(f'{kind}_AP' for kind in kinds)], *rows, [_AVERAGE, *(value(f'{k}_mAP') for k in kinds)]]


def write_reports(
    rows: list[list], matrix: np.ndarray | None, folder: Path, tables: Sequence[str | Path] = ()
) -> list[tuple[str, Path]]:
    """Write figures of each class, and return where: what they are called, and the path.

    Args:
        rows: of :func:`report_of`.
        matrix: as there, written as ``confusion_matrix.csv`` and ``confusion_matrix.png``; or ``None``.
        folder: for files that are not named.
        tables: files for the figures of each class, by default ``per_class.csv``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [('figures of each class', Path(table)) for table in tables or [folder / 'per_class.csv']]
    for _, path in written:
        write_csv(path, rows)
    if matrix is not None:
        from ..visualization.confusion import confusion_picture  # matplotlib takes its time
        from ..visualization.pictures import write_png

        table, picture = (folder / f'{_MATRIX}.{ending}' for ending in ('csv', 'png'))
        classes = [name for name, *_ in rows[1:-1]]
        numbers = [[name, *row] for name, row in zip(classes, matrix.tolist(), strict=True)]
        write_csv(table, [['true', *classes], *numbers])
        write_png(picture, confusion_picture(matrix, classes))
        written += [('confusion matrix', table), ('its picture', picture)]
    return written
