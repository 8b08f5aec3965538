"""Learning rates that follow the length of a training and its batch: shortened, resumed, and of accumulated batches."""

import inspect
import re
import warnings
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, ReduceOnPlateauParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch.optim import SGD

from ..errors import UsageError
from ..registry import entries_of, type_name

_WITH_RATIO = ('CosineAnnealingLR', 'CosineRestartLR')
# The optimizer in the text of a config as mmengine writes it into a checkpoint; its settings may be tuples.
_OPTIMIZER = re.compile(r"\boptimizer=dict\([^()]*(?:\([^()]*\)[^()]*)*?\btype='([^']+)'")
# What changes while a schedule runs; the rest is what a config says.
_STATE = {'last_step', '_global_step', '_last_value', 'base_values', 'optimizer', 'verbose'}


def whole_batch(auto_scale_lr: dict | None, optim_wrapper: Any) -> dict | None:
    """Return ``auto_scale_lr`` such that mmengine, which counts one batch, scales by all that are accumulated."""
    number = optim_wrapper.get('accumulative_counts', 1) if isinstance(optim_wrapper, dict) else 1
    if number == 1 or not auto_scale_lr or not auto_scale_lr.get('enable') or 'base_batch_size' not in auto_scale_lr:
        return auto_scale_lr
    print(f'The learning rate is scaled by the {number} batches that are accumulated, which count as one.')
    return dict(auto_scale_lr, base_batch_size=auto_scale_lr['base_batch_size'] / number)


def fit_schedules(cfg: Config, before: Config) -> None:
    """Scale the schedules of a config whose ``train_cfg.max_epochs`` differs from that of ``before``.

    What is given in epochs is scaled to whole ones; in a training of one epoch a warm-up that is updated by iteration
    takes half of it, and what works by epoch is left out. What is given in iterations is shortened, not lengthened.
    Nothing is done where the schedules differ too.
    """
    old, new = (c.train_cfg.get('max_epochs') if isinstance(c.get('train_cfg'), dict) else 0 for c in (before, cfg))
    setting = cfg.get('param_scheduler')
    counted = isinstance(old, int) and isinstance(new, int) and 0 < new != old > 0
    if not counted or setting != before.get('param_scheduler'):
        return
    schedules = entries_of(setting)
    if not schedules or not all(isinstance(schedule, dict) for schedule in schedules):
        return
    scaled = [s for s in (_scaled(schedule, old, new) for schedule in schedules) if s is not None]
    if scaled != schedules:
        cfg.param_scheduler = scaled or None
        print(f'train_cfg.max_epochs is {new} and not {old}: the learning rate schedule is scaled with it.')


def shorten_warm_up(cfg: Config, iterations: int) -> None:
    """Let a warm-up that is given in iterations take no more than a tenth of a training of so many."""
    most = max(iterations // 10, 1)
    for schedule in entries_of(cfg.get('param_scheduler')):
        if not isinstance(schedule, dict) or type_name(schedule) not in ('LinearLR', 'ConstantLR'):
            continue
        if not schedule.get('by_epoch', True) and most < schedule.get('end', 0):
            print(f'The warm-up takes {most} of {iterations} iterations and not {schedule["end"]}.')
            schedule['end'] = most


def scale_minimum(cfg: Config, rate: float) -> None:
    """Let the rate that a schedule ends at be scaled with the learning rate, of which it is a share.

    Where the batch is small it could be above the scaled learning rate.
    """
    for schedule in entries_of(cfg.get('param_scheduler')):
        if isinstance(schedule, dict) and schedule.get('eta_min') and type_name(schedule) in _WITH_RATIO:
            schedule['eta_min_ratio'] = schedule.pop('eta_min') / rate


def _scaled(schedule: dict, old: int, new: int) -> dict | None:
    """Return a schedule of ``old`` epochs for ``new`` ones; ``None`` where it has no part in them."""
    if not schedule.get('by_epoch', True):
        ratio = min(new / old, 1)
        times = {key: max(round(schedule[key] * ratio), 1) for key in ('begin', 'end') if schedule.get(key)}
        return type(schedule)(schedule, **times)

    def moved(epoch: float) -> float:
        if not 0 < epoch < old:
            return epoch * new // old
        return 0.5 if new == 1 else min(max(round(epoch * new / old), 1), new - 1)

    times = {key: moved(schedule[key]) for key in ('begin', 'end') if schedule.get(key)}
    if new == 1 and 0.5 in times.values() and not schedule.get('convert_to_iter_based'):
        return None
    if 'milestones' in schedule:
        times['milestones'] = sorted({moved(epoch) for epoch in schedule['milestones']} - {0.5})
    if 'T_max' in schedule:
        times['T_max'] = max(round(schedule['T_max'] * new / old), 1)
    return type(schedule)(schedule, **times)


def check_same_optimizer(checkpoint: dict, cfg: Config, filename: str) -> None:
    """Refuse to resume with another optimizer: it would take the state and the settings of the first for its own.

    The config in the checkpoint is looked at as text: running it would run what is in it.
    """
    text = (checkpoint.get('meta') or {}).get('cfg')
    setting = cfg.optim_wrapper.get('optimizer') if isinstance(cfg.get('optim_wrapper'), dict) else None
    if not isinstance(text, str) or not isinstance(setting, dict):
        return
    block = re.search(r'^optim_wrapper *=.*?(?=^\w|\Z)', text, re.MULTILINE | re.DOTALL)
    before = _OPTIMIZER.search(block[0]) if block else None
    if before and before[1].split('.')[-1] != type_name(setting):
        raise _another_optimizer(filename, f'{type_name(setting)} and not {before[1].split(".")[-1]}')


def _another_optimizer(filename: str, which: str) -> UsageError:
    return UsageError(
        f'{filename} cannot be resumed with another optimizer, {which}: keep optim_wrapper.optimizer.type, or leave '
        f'--resume out and start from its weights with --cfg-options load_from={filename}'
    )


def base_settings(optim_wrapper: Any) -> list[dict]:
    """Return the settings of each parameter group, of what is scheduled the value that its schedule starts from.

    They are those that the optimizer is built with; what it keeps beside them in its groups is state. There are none
    for an optimizer that is not built yet, or for several of them.
    """
    if not isinstance(optim_wrapper, OptimWrapper):
        return []
    names = {'lr', 'weight_decay', *inspect.signature(type(optim_wrapper.optimizer)).parameters} - {'params'}
    found = []
    for group in optim_wrapper.param_groups:
        settings = {name: group.get(f'initial_{name}', group[name]) for name in sorted(names & group.keys())}
        if 'betas' in settings and 'initial_momentum' in group:  # mmengine schedules the first of them by this name
            settings['betas'] = (group['initial_momentum'], *group['betas'][1:])
        found.append(settings)
    return found


def follow_config(runner: Runner, built: list[dict], filename: str) -> None:
    """Let a resumed training follow the optimizer and the schedules of its config where the checkpoint has others.

    mmengine restores them as they were: the settings of the optimizer, and schedules with the length of the first
    training.

    Args:
        runner: after its ``resume``.
        built: :func:`base_settings` of its optimizer before that.
        filename: of the checkpoint.

    Raises:
        UsageError: a setting of the optimizer is another and cannot change within a training.
    """
    changed = _follow_optimizer(runner.optim_wrapper, built, filename)
    resumed, configs = runner.param_schedulers, entries_of(runner.cfg.get('param_scheduler'))
    if not isinstance(resumed, list) or not configs or not all(isinstance(config, dict) for config in configs):
        return
    groups = runner.optim_wrapper.param_groups
    names = sorted({scheduler.param_name for scheduler in resumed})
    values = [tuple(group.get(f'initial_{name}', group.get(name)) for name in names) for group in groups]
    if any(None in value for value in values):
        return  # one of the schedules is of something that has another name in the optimizer
    # One group for all that begin alike: there is one a layer or more, and each iteration is gone through.
    distinct = list(dict.fromkeys(values))
    optimizer = SGD(
        [dict(params=[torch.zeros(1, requires_grad=True)], **dict(zip(names, v, strict=True))) for v in distinct]
    )
    fresh = [_build(runner, config, optimizer) for config in configs]
    is_another = any(_settings(a) != _settings(b) for a, b in zip(resumed, fresh, strict=True))
    if not is_another and changed.isdisjoint(names):
        return
    if any(isinstance(scheduler, ReduceOnPlateauParamScheduler) for scheduler in fresh):
        if is_another:
            print_log('The schedule of the checkpoint goes on: that of the config depends on metrics.', 'current')
    else:
        _advance(fresh, runner.iter, runner.epoch, len(runner.train_dataloader))
        for group, value in zip(groups, values, strict=True):
            group.update({name: optimizer.param_groups[distinct.index(value)][name] for name in names})
            if 'betas' in group and 'momentum' in names:
                group['betas'] = (group['momentum'], *group['betas'][1:])
        for old, new in zip(resumed, fresh, strict=True):
            vars(old).update({k: value for k, value in vars(new).items() if k not in ('optimizer', 'base_values')})
        if is_another:
            print_log(
                'The schedule of the config is another than that of the checkpoint: it is followed from here on, with '
                f'lr={groups[0]["lr"]:.4g}.',
                'current',
            )
    for scheduler in resumed:
        if not isinstance(scheduler, ReduceOnPlateauParamScheduler):
            scheduler.base_values = [value[names.index(scheduler.param_name)] for value in values]
        scheduler._last_value = [group[scheduler.param_name] for group in groups]


def _follow_optimizer(optim_wrapper: Any, built: list[dict], filename: str) -> set[str]:
    """Set what the checkpoint has otherwise, and return the names; what is scheduled is scaled where it stands."""
    changes: dict[str, str] = {}
    groups = optim_wrapper.param_groups if built else []
    for group, own, loaded in zip(groups, built, base_settings(optim_wrapper), strict=True):
        for name, value in own.items():
            before = loaded.get(name)
            if _is_same(before, value):
                continue
            if not _is_number(value):
                if name not in loaded:
                    continue  # a choice of a later version of PyTorch
                raise UsageError(
                    f'{filename} was trained with {name}={before} in its optimizer, which {name}={value} cannot go on '
                    f'from: set optim_wrapper.optimizer.{name}={before}, or leave --resume out and start from its '
                    f'weights with --cfg-options load_from={filename}'
                )
            if name not in loaded:
                raise _another_optimizer(filename, f'one with {name}')
            changes.setdefault(name, f'{name}={value} (it was {before})')
            if f'initial_{name}' in group:
                group[name] = group[name] * value / before if before else value
                group[f'initial_{name}'] = value
            else:
                group[name] = value
            if name == 'betas' and 'initial_momentum' in group:
                changes.setdefault('momentum', '')
                group['initial_momentum'] = group['momentum'] = value[0]
    if changes:
        what = ', '.join(filter(None, changes.values()))
        print_log(f'The optimizer of the config differs from the checkpoint; from here on it has {what}.', 'current')
    return set(changes)


def _is_same(before: Any, value: Any) -> bool:
    if isinstance(before, tuple | list) and isinstance(value, tuple | list):
        return list(before) == list(value)
    return before == value


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _build(runner: Runner, config: dict, optimizer: torch.optim.Optimizer) -> Any:
    end = runner.max_epochs if config.get('by_epoch', True) else runner.max_iters
    default = dict(optimizer=optimizer, epoch_length=len(runner.train_dataloader))
    return PARAM_SCHEDULERS.build({'end': end, **config}, default_args=default)


def _settings(scheduler: Any) -> dict:
    return {key: value for key, value in vars(scheduler).items() if key not in _STATE}


def _advance(schedulers: list, iterations: int, epochs: int, length: int) -> None:
    """Step schedules as mmengine's hook would have in so many iterations and epochs of this length."""
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    steps = []
    for done in range(1, max(iterations, epochs * length) + 1):
        steps += by_iteration if done <= iterations else []
        steps += by_epoch if done % length == 0 and done <= epochs * length else []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the optimizer has made no step
        for scheduler in steps:
            scheduler.step()
