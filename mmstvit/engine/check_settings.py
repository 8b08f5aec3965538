"""Refuse settings of a config whose values cannot be meant, before anything is built."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmengine.config import Config

from ..errors import UsageError
from ..registry import entries_of

_PREPROCESSORS = ('data_preprocessor', 'model.data_preprocessor')


def _is_int(value: Any, least: float = -math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any, least: float = -math.inf) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= least


def _ascend(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(map(_is_int, values)) and sorted({*values}) == [*values]


# What a value must be, and whether it is.
_INT = 'an integer', _is_int
_COUNT = 'an integer of at least 1', lambda v: _is_int(v, 1)
_FROM_0 = 'an integer of at least 0', lambda v: _is_int(v, 0)
_RATE = 'a number of at least 0', lambda v: _is_number(v, 0)
_TOPK = 'integers of at least 1', lambda v: all(_is_int(k, 1) for k in entries_of(v))
_LEVELS = ('CRITICAL', 'FATAL', 'ERROR', 'WARN', 'WARNING', 'INFO', 'DEBUG', 'NOTSET')
# Preprocessors of several inputs have dicts, which are left to them.
_MEAN = 'numbers', lambda v: isinstance(v, dict) or all(map(_is_number, entries_of(v)))
_STD = 'numbers above 0', lambda v: isinstance(v, dict) or all(_is_number(s) and s > 0 for s in entries_of(v))
# By key, with `*` for each of a list; keys that are not there, and None, are left to who reads them.
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys((f'{name}_dataloader.batch_size' for name in ('train', 'val', 'test')), _COUNT),
    **dict.fromkeys((f'{name}_dataloader.num_workers' for name in ('train', 'val', 'test')), _FROM_0),
    **dict.fromkeys((f'train_cfg.{name}' for name in ('max_epochs', 'max_iters', 'val_interval')), _INT),
    'optim_wrapper.optimizer.lr': _RATE,
    'optim_wrapper.optimizer.weight_decay': _RATE,
    'optim_wrapper.accumulative_counts': _COUNT,
    'optim_wrapper.clip_grad': ('a dict, e.g. dict(max_norm=1.0)', lambda v: isinstance(v, dict)),
    'param_scheduler.*.milestones': ('a list of integers that ascend', _ascend),
    'default_hooks.checkpoint.interval': ('-1 (never) or at least 1', lambda v: v == -1 or _is_int(v, 1)),
    'randomness.seed': _FROM_0,
    'env_cfg.mp_cfg': ('a dict', lambda v: isinstance(v, dict)),
    'log_level': ('one of the levels of logging, e.g. INFO', lambda v: v in _LEVELS),
    'val_evaluator.topk': _TOPK,
    'test_evaluator.topk': _TOPK,
    **{f'{key}.mean': _MEAN for key in _PREPROCESSORS},
    **{f'{key}.std': _STD for key in _PREPROCESSORS},
}


def check_settings(cfg: Config, loaders: Sequence[str]) -> None:
    """Raise :class:`UsageError`, which names the key, for a value that ``_RULES`` refuse.

    A dataloader without a data set is refused too, and ``mean`` and ``std`` of different lengths.

    Args:
        cfg: of a training or a test.
        loaders: the keys of the dataloaders that run.
    """
    for key, (what, holds) in _RULES.items():
        for place, value in _values(cfg, key.split('.')):
            if not holds(value):
                raise UsageError(f'{place}={value!r} must be {what}')
    for loader in loaders:
        if isinstance(cfg.get(loader), dict) and not cfg[loader].get('dataset'):
            raise UsageError(f'{loader} has no dataset')
    for key in _PREPROCESSORS:
        values = {name: v for name in ('mean', 'std') for _, v in _values(cfg, [*key.split('.'), name])}
        of = {name: len(entries_of(v)) for name, v in values.items() if not isinstance(v, dict)}
        if len({*of.values()}) > 1:
            raise UsageError(
                f'{key}.mean has {of["mean"]} numbers and {key}.std has {of["std"]}: both are one a channel'
            )


def _values(part: Any, names: Sequence[str], place: str = '') -> Iterator[tuple[str, Any]]:
    """The places and values of a dotted key, without those that are not there or None."""
    if not names:
        if part is not None:
            yield place[1:], part
    elif names[0] == '*':
        for i, entry in enumerate(entries_of(part)):
            yield from _values(entry, names[1:], f'{place}.{i}')
    elif hasattr(part, 'get'):
        yield from _values(part.get(names[0]), names[1:], f'{place}.{names[0]}')
