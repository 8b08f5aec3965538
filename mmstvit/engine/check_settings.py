"""Refuse settings of a config whose values cannot be meant, before anything is built."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.config import Config

from ..errors import UsageError
from ..registry import entries_of


def _is_int(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# Key, what a value must be, and whether it is; keys that are not there, and None, are left to who reads them.
_RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    *(
        rule
        for name in ('train', 'val', 'test')
        for rule in (
            (f'{name}_dataloader.batch_size', 'an integer of at least 1', lambda v: _is_int(v, 1)),
            (f'{name}_dataloader.num_workers', 'an integer of at least 0', lambda v: _is_int(v, 0)),
        )
    ),
    ('train_cfg.max_epochs', 'an integer', lambda v: _is_int(v, -math.inf)),
    ('train_cfg.max_iters', 'an integer', lambda v: _is_int(v, -math.inf)),
    ('train_cfg.val_interval', 'an integer', lambda v: _is_int(v, -math.inf)),
    ('optim_wrapper.optimizer.lr', 'a number of at least 0', lambda v: _is_number(v) and v >= 0),
    ('optim_wrapper.optimizer.weight_decay', 'a number of at least 0', lambda v: _is_number(v) and v >= 0),
    ('optim_wrapper.accumulative_counts', 'an integer of at least 1', lambda v: _is_int(v, 1)),
    ('optim_wrapper.clip_grad', 'a dict, e.g. dict(max_norm=1.0)', lambda v: isinstance(v, dict)),
    ('default_hooks.checkpoint.interval', '-1 (never) or at least 1', lambda v: v == -1 or _is_int(v, 1)),
    ('randomness.seed', 'an integer', lambda v: _is_int(v, 0)),
    ('env_cfg.mp_cfg', 'a dict', lambda v: isinstance(v, dict)),
    ('log_level', 'one of the levels of logging, e.g. INFO', lambda v: v in _LEVELS),
)
_LEVELS = ('CRITICAL', 'FATAL', 'ERROR', 'WARN', 'WARNING', 'INFO', 'DEBUG', 'NOTSET')


def check_settings(cfg: Config, loaders: Sequence[str]) -> None:
    """Refuse numbers of wrong kinds, dataloaders without a data set, milestones out of order, and wrong mean and std.

    Args:
        cfg: of a training or a test.
        loaders: the keys of the dataloaders that run.

    Raises:
        UsageError: naming the key, its value and what it must be.
    """
    for key, what, holds in _RULES:
        value = _at(cfg, key)
        if value is not None and not holds(value):
            raise UsageError(f'{key}={value!r} must be {what}')
    for loader in loaders:
        if isinstance(cfg.get(loader), dict) and not cfg[loader].get('dataset'):
            raise UsageError(f'{loader} has no dataset')
    for i, scheduler in enumerate(entries_of(cfg.get('param_scheduler'))):
        milestones = scheduler.get('milestones') if isinstance(scheduler, dict) else None
        if milestones is not None:
            _check_milestones(f'param_scheduler.{i}.milestones', milestones)
    for key in ('data_preprocessor', 'model.data_preprocessor'):
        _check_scaling(key, _at(cfg, key))
    evaluators = [(key, cfg.get(key)) for key in ('val_evaluator', 'test_evaluator')]
    for key, evaluator in evaluators:
        topk = evaluator.get('topk') if isinstance(evaluator, dict) else None
        if not all(_is_int(k, 1) for k in entries_of(topk)):
            raise UsageError(f'{key}.topk={topk!r} must be integers of at least 1')


def _at(cfg: Config, key: str) -> Any:
    """The value of a dotted key, ``None`` where there is none."""
    part: Any = cfg
    for name in key.split('.'):
        part = part.get(name) if hasattr(part, 'get') else None
    return part


def _check_milestones(key: str, milestones: Any) -> None:
    if not isinstance(milestones, (list, tuple)) or not all(_is_int(m, 0) for m in milestones):
        raise UsageError(f'{key}={milestones!r} must be a list of integers')
    if any(a >= b for a, b in zip(milestones, milestones[1:])):
        raise UsageError(f'{key}={list(milestones)} must ascend: {sorted({*milestones})}')


def _check_scaling(key: str, settings: Any) -> None:
    """Refuse mean and std that do not fit each other or that nothing can be divided by."""
    if not isinstance(settings, dict):
        return
    lengths = {}
    for name in ('mean', 'std'):
        values = settings.get(name)
        if values is None or isinstance(values, dict):
            continue
        values = entries_of(values)
        if not all(map(_is_number, values)):
            raise UsageError(f'{key}.{name}={settings[name]!r} must be numbers, one a channel')
        if name == 'std' and not all(value > 0 for value in values):
            raise UsageError(f'{key}.std={settings[name]!r}: images are divided by it, it must be above 0')
        lengths[name] = len(values)
    if len(lengths) == 2 and lengths['mean'] != lengths['std']:
        raise UsageError(
            f'{key}.mean has {lengths["mean"]} numbers and {key}.std has {lengths["std"]}: both are one a channel'
        )
