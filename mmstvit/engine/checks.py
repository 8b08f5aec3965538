"""What a run would fail at, or do in vain, said before its first iteration in one line."""

import re
from collections.abc import Iterable
from typing import Any

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.registry import DATASETS, METRICS, OPTIMIZERS
from torch import nn
from torch.utils.data import DataLoader

from ..errors import UsageError, suggest, unknown_type
from ..registry import entries_of, resolve_type
from .class_names import check_configured_names, class_names
from .datasets import configured
from .folders import shown

# Heads with a class of the data for each output, as the toolboxes' models name them. Others have classes of their own:
# region proposals know one, semantic heads those of another map.
HEADS = re.compile(
    r'((student|teacher|detector)\.)?(head|cls_head|(decode|auxiliary)_head(\.\d+)?|'
    r'(roi_head\.)?(bbox|mask|mask_iou|point)_head(\.\d+)?)'
)
_AVERAGES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
_RECALLS = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')


# ------------------------------------------------------------------------------------------------- before building
def check_training(cfg: Config) -> None:
    """Refuse a config of a training for what is known before anything is read.

    Raises:
        UsageError: names of classes differ, a data set has no pipeline, a schedule begins after the training ends, or
            the best weights would be chosen by a metric that there is not.
    """
    loop = cfg.train_cfg if isinstance(cfg.train_cfg, dict) else {}  # what else it is, mmengine refuses
    check_schedules(cfg.get('param_scheduler'), loop.get('max_epochs'), loop.get('max_iters'))
    if loop.get('val_interval', 1) < 1:
        raise UsageError('train_cfg.val_interval must be at least 1; --no-validate trains without validation')
    _check_save_best(cfg)
    loaders = ('train_dataloader', 'val_dataloader')
    _check_pipelines(cfg, loaders)
    check_configured_names(cfg, loaders)


def _check_pipelines(cfg: Config, loaders: Iterable[str]) -> None:
    """Refuse a data set of a toolbox whose samples nothing would load and pack."""
    toolboxes = ('mmpretrain.', 'mmdet.', 'mmseg.', 'mmaction.', 'mmstvit.')
    for key, dataset in configured(cfg, *loaders):
        kind = resolve_type(dataset.get('type'), DATASETS, cfg.get('default_scope'))
        if getattr(kind, '__module__', '').startswith(toolboxes) and 'pipeline' not in dataset:
            raise UsageError(f'{key} has no pipeline, so nothing would load its samples: name the steps in it')


def check_schedules(schedulers: Any, max_epochs: int | None, max_iters: int | None) -> None:
    """Refuse a training of no iterations, and one that ends before a part of its schedule begins.

    Args:
        schedulers: ``param_scheduler`` of a config.
        max_epochs: of the training, ``None`` where it is not known.
        max_iters: of the training, ``None`` where it is not known.
    """
    for name, length in dict(max_epochs=max_epochs, max_iters=max_iters).items():
        if isinstance(length, int) and length < 1:
            raise UsageError(f'train_cfg.{name}={length}: nothing would be trained; it must be at least 1')
    for i, scheduler in enumerate(entries_of(schedulers)):
        if not isinstance(scheduler, dict):
            continue
        by_epoch = scheduler.get('by_epoch', True)
        key, length = ('max_epochs', max_epochs) if by_epoch else ('max_iters', max_iters)
        begin, end = scheduler.get('begin', 0), scheduler.get('end', length)
        if end is None or end > begin:
            continue
        kind = scheduler.get('type')
        kind = getattr(kind, '__name__', kind)
        what = f'param_scheduler.{i} ({kind}) begins at {"epoch" if by_epoch else "iteration"} {begin}'
        if 'end' in scheduler:
            raise UsageError(f'{what} and ends at {end}: its end must be larger')
        raise UsageError(
            f'{what}, and the training ends at train_cfg.{key}={length}: {_shorter(entries_of(schedulers), i, length)}'
        )


def _shorter(schedulers: list, late: int, length: Any) -> str:
    """What to set so that a schedule fits into a training."""
    begin = schedulers[late].get('begin', 0)
    before = [i for i, other in enumerate(schedulers) if isinstance(other, dict) and other.get('end') == begin]
    by_iteration = all(schedulers[i].get('convert_to_iter_based') for i in [*before, late])
    warm_up = 0.5 if length == 1 and by_iteration else max(length // 10, 1)
    constant = 'a constant rate with --cfg-options param_scheduler=None'
    if warm_up >= length:
        return f'train longer, or at {constant}'
    settings = [*(f'param_scheduler.{i}.end={warm_up}' for i in before), f'param_scheduler.{late}.begin={warm_up}']
    return f'train longer, begin it earlier with --cfg-options {" ".join(settings)}, or take {constant}'


# ---------------------------------------------------------------------------------------------------------- metrics
def _check_save_best(cfg: Config) -> None:
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    metrics = [name for name in entries_of(hook.get('save_best')) if name != 'auto']
    every: list[str] = []
    for evaluator in entries_of(cfg.get('val_evaluator')):
        names = _metric_names(evaluator, cfg.get('default_scope'))
        if names is None:
            return
        every += names
    for name in metrics:
        if every and name not in every:
            raise UsageError(
                f'default_hooks.checkpoint.save_best={name} is none of the metrics of val_evaluator: '
                f'{", ".join(every)}{suggest(name, every)}'
            )


def _metric_names(evaluator: Any, scope: str | None) -> list[str] | None:
    """The names under which a metric's values are logged, ``None`` where they cannot be known."""
    cls: Any = isinstance(evaluator, dict) and resolve_type(evaluator.get('type'), METRICS, scope)
    name = getattr(cls, '__name__', None)
    names = _NAMES[name](evaluator) if name in _NAMES else None
    if not names:
        return None
    prefix = evaluator.get('prefix') or cls.default_prefix
    return [f'{prefix}/{name}' if prefix else name for name in names]


def _top(numbers: Any) -> list[str]:
    return [f'top{k}' for k in entries_of(numbers)]


def _accuracy(evaluator: dict) -> list[str]:
    thresholds = entries_of(evaluator.get('thrs', 0.0)) or [None]
    ends = [''] if len(thresholds) == 1 else ['_no-thr' if t is None else f'_thr-{t:.2f}' for t in thresholds]
    return [name + end for name in _top(evaluator.get('topk', 1)) for end in ends]


def _acc_metric(evaluator: dict) -> list[str]:
    names = []
    for metric in entries_of(evaluator.get('metric_list', ('top_k_accuracy', 'mean_class_accuracy'))):
        options = (evaluator.get('metric_options') or {}).get('top_k_accuracy') or {}
        by_name = dict(top_k_accuracy=_top(options.get('topk', (1, 5))), mean_class_accuracy=['mean1'])
        names += by_name.get(metric, [metric])
    return names


def _coco_metric(evaluator: dict) -> list[str]:
    items, names = evaluator.get('metric_items'), list[str]()
    for metric in entries_of(evaluator.get('metric', 'bbox')):
        if evaluator.get('classwise') or metric == 'proposal_fast':
            return []
        if metric == 'proposal':
            names += entries_of(items) or _RECALLS
        else:
            names += [f'{metric}_{item}' for item in entries_of(items) or _AVERAGES]
    return names


def _iou_metric(evaluator: dict) -> list[str]:
    by_name = dict(mIoU=('mIoU', 'mAcc'), mDice=('mDice', 'mAcc'), mFscore=('mFscore', 'mPrecision', 'mRecall'))
    return ['aAcc', *(name for m in entries_of(evaluator.get('iou_metrics', 'mIoU')) for name in by_name.get(m, ()))]


_NAMES = dict(IoUMetric=_iou_metric, Accuracy=_accuracy, AccMetric=_acc_metric, CocoMetric=_coco_metric)


# -------------------------------------------------------------------------------------------------- what was built
def check_batches(loader: DataLoader) -> None:
    """Raise :class:`UsageError` for a dataloader that has no batches."""
    if loader.batch_sampler is None or isinstance(loader.sampler, InfiniteSampler) or len(loader):
        return
    processes = get_world_size()
    dataset: Any = loader.dataset
    batches: Any = loader.batch_sampler
    raise UsageError(
        f'the data set has {len(dataset)} samples, which are no whole batch of {batches.batch_size}'
        f'{f" for each of {processes} processes" if processes > 1 else ""}, and drop_last leaves the rest out: take a '
        'smaller batch_size, or drop_last=False'
    )


def check_trainable(model: nn.Module) -> None:
    """Raise :class:`UsageError` for a model without parameters that learn."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError('nothing would be trained: all parameters of the model are frozen')


def check_classes(model: nn.Module, loops: Iterable[Any], training: bool) -> None:
    """Raise :class:`UsageError` where heads, augmentations or metrics have other numbers of classes than the data.

    Args:
        model: without its wrapper.
        loops: that are built and will run, each with a dataloader and perhaps an evaluator.
        training: whether the model is trained.
    """
    if hasattr(model, 'language_model'):
        return  # its classes are words
    heads = {name: n for name, n in _numbers(model, training).items() if n is not None}
    name = next(iter(heads), '')
    for loop in loops:
        names = class_names(loop.dataloader.dataset)
        for head, number in heads.items():
            if names and number != len(names):
                mend = f'set --cfg-options {head}.num_classes={len(names)}'
                if not training:
                    mend = 'name all that the model was trained with, in their order, in dataset.metainfo.classes'
                raise UsageError(
                    f'{head}.num_classes={number}, and the data has {len(names)} classes, {shown(names)}: {mend}'
                )
            if number != heads[name]:
                raise UsageError(f'{head}.num_classes={number} and {name}.num_classes={heads[name]} must be the same')
        for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
            if type(metric).__name__ == 'IoUMetric':
                _check_ignored(model, metric)
            if type(metric).__name__ == 'Accuracy' and heads:
                _check_topk(max(entries_of(getattr(metric, 'topk', 0))), heads[name], "the evaluator's topk")
    classifier: Any = getattr(model, 'head', None)
    if getattr(classifier, 'cal_acc', False) and heads:
        _check_topk(max(entries_of(classifier.topk)), heads[name], 'model.head.topk')


def _check_ignored(model: nn.Module, metric: Any) -> None:
    """Refuse a metric of label maps that counts pixels as wrong which the loss leaves out, or the other way round."""
    head = getattr(model, 'decode_head', None)
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    ignored = getattr(head, 'ignore_index', metric.ignore_index)
    if ignored != metric.ignore_index:
        raise UsageError(
            f'model.decode_head.ignore_index={ignored}, and the evaluator has ignore_index={metric.ignore_index}: give '
            'both the label of what is not labelled'
        )


def _check_topk(largest: int, number: int, what: str) -> None:
    if largest > number:
        raise UsageError(f'{what} asks for the best {largest}, and the model has {number} classes: take at most those')


def _numbers(model: nn.Module, training: bool) -> dict[str, int | None]:
    """Numbers of classes in a model, by their places in the config."""
    numbers = {}
    for name, module in model.named_modules():
        # Masks that are the same for all classes need no number.
        if HEADS.fullmatch(name) and not getattr(module, 'class_agnostic', False):
            number = getattr(module, 'num_classes', None)
            numbers[f'model.{name}'] = number if isinstance(number, int) else None
    data: Any = getattr(model, 'data_preprocessor', None)
    if training and getattr(data, 'to_onehot', False):
        numbers['data_preprocessor'] = data.num_classes
    blending = getattr(data, 'blending', None)
    if training and blending is not None:
        for i, part in enumerate(getattr(blending, 'augments', [blending])):
            numbers[f'model.data_preprocessor.blending.{i}'] = getattr(part, 'num_classes', None)
    return numbers


def check_optimizer(cfg: Config) -> None:
    """Refuse an unknown optimizer; mmengine's line for it does not name it."""
    kind = (cfg.optim_wrapper.get('optimizer') or {}).get('type')
    with OPTIMIZERS.switch_scope_and_registry(cfg.default_scope) as registry:
        if isinstance(kind, str) and registry.get(kind) is None:
            raise UsageError(unknown_type(kind, registry))
