"""The learning rate of a training that goes on: of a longer schedule, and of a batch that is accumulated."""

import warnings
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import ReduceOnPlateauParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch.optim import SGD

# What changes while a schedule runs; the rest is what a config says.
_STATE = {'last_step', '_global_step', '_last_value', 'base_values', 'optimizer', 'verbose'}


def whole_batch(auto_scale_lr: dict | None, optim_wrapper: Any) -> dict | None:
    """Return ``auto_scale_lr`` such that mmengine, which counts one batch, scales by all that are accumulated."""
    number = optim_wrapper.get('accumulative_counts', 1) if isinstance(optim_wrapper, dict) else 1
    if number == 1 or not (auto_scale_lr or {}).get('enable') or 'base_batch_size' not in auto_scale_lr:
        return auto_scale_lr
    print(f'The learning rate is scaled by the {number} batches that are accumulated, which count as one.')
    return dict(auto_scale_lr, base_batch_size=auto_scale_lr['base_batch_size'] / number)


def follow_config(runner: Runner) -> None:
    """Let a resumed training follow the schedules of its config where they differ from those of the checkpoint.

    mmengine restores schedules as they were, with the length of the first training.
    """
    resumed, configs = runner.param_schedulers, runner.cfg.get('param_scheduler')
    configs = list(configs) if isinstance(configs, (list, tuple)) else [configs]
    if not isinstance(resumed, list) or not all(isinstance(config, dict) for config in configs):
        return
    groups = runner.optim_wrapper.param_groups
    names = {scheduler.param_name for scheduler in resumed}
    values = [tuple(group.get(f'initial_{name}', group.get(name)) for name in sorted(names)) for group in groups]
    if any(None in value for value in values):
        return  # one of the schedules is of something that has another name in the optimizer
    # One group for all that begin alike: there is one a layer or more, and each iteration is gone through.
    distinct = list(dict.fromkeys(values))
    optimizer = SGD(
        [
            dict(params=[torch.zeros(1, requires_grad=True)], **dict(zip(sorted(names), v, strict=True)))
            for v in distinct
        ]
    )
    fresh = [_build(runner, config, optimizer) for config in configs]
    if all(_settings(a) == _settings(b) for a, b in zip(resumed, fresh, strict=True)):
        return
    if any(isinstance(scheduler, ReduceOnPlateauParamScheduler) for scheduler in fresh):
        print_log('The schedule of the checkpoint goes on: that of the config depends on metrics.', 'current')
        return
    _advance(fresh, runner.iter, runner.epoch, len(runner.train_dataloader))
    for group, value in zip(groups, values, strict=True):
        group.update({name: optimizer.param_groups[distinct.index(value)][name] for name in names})
    for old, new in zip(resumed, fresh, strict=True):
        vars(old).update({key: value for key, value in vars(new).items() if key not in ('optimizer', 'base_values')})
        old._last_value = [group[old.param_name] for group in groups]
    print_log(
        'The schedule of the config is another than that of the checkpoint: it is followed from here on, with '
        f'lr={groups[0]["lr"]:.4g}.',
        'current',
    )


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
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the optimizer has made no step
        done = 0
        for epoch in range(1, epochs + 1):
            target = iterations if epoch == epochs else min(epoch * length, iterations)
            _step(by_iteration, target - done)
            _step(by_epoch, 1)
            done = target
        _step(by_iteration, iterations - done)


def _step(schedulers: list, times: int) -> None:
    for _ in range(times if schedulers else 0):
        for scheduler in schedulers:
            scheduler.step()
