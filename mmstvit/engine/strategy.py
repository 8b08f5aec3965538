"""mmengine's strategies (``strategy`` in a config): what its FlexibleRunner needs, and what it would pass over."""

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS, RUNNERS, STRATEGIES
from mmengine.runner import FlexibleRunner

from ..errors import UsageError, suggest
from ..registry import is_type, resolve_type

# The name of its class -> what is built.
_STRATEGIES = {
    'SingleDeviceStrategy': 'SingleDeviceStrategy',
    'DDPStrategy': 'DDPStrategy',
    'FSDPStrategy': 'mmstvit.FSDPStrategy',
}
_SINGLE = 'SingleDeviceStrategy'
_RUNNER = 'mmstvit.FlexibleRunner'


def choose_strategy(cfg: Config) -> bool:
    """Make a config with a ``strategy``, or with ``runner_type='FlexibleRunner'``, ready for that runner.

    Returns:
        Whether it is such a config.

    Raises:
        UsageError: the strategy is unknown or does not fit the launcher or the rest of the config.
    """
    if not has_strategy(cfg):
        return False
    if cfg.get('runner_type') is not None and not _is_flexible(cfg):
        raise UsageError(f"runner_type='{cfg.runner_type}' knows no strategy: leave runner_type or strategy out")
    if cfg.get('strategy') is None:
        cfg.strategy = ConfigDict(type=_SINGLE if cfg.launcher == 'none' else 'DDPStrategy')
    strategy, name = cfg.strategy, strategy_name(cfg)
    if (cfg.launcher == 'none') != (name == _SINGLE):
        many = 'is for several processes: start them with tools/dist_train.sh or tools/slurm_train.sh'
        one = 'is for one process: leave --launcher out, or take DDPStrategy or FSDPStrategy'
        raise UsageError(f'strategy.type={name} {one if name == _SINGLE else many}')
    strategy.type = _STRATEGIES[name]
    _move_settings(cfg, name)
    _refuse_hooks(cfg)
    if not torch.cuda.is_available() and name != _SINGLE:
        _distribute_on_cpu(strategy)
    cfg.runner_type = _RUNNER
    # What a test needs is in its checkpoint.
    cfg.setdefault('init_weights_for_test_or_val', False)
    cfg.setdefault('env_cfg', ConfigDict(dist_cfg=dict(backend='nccl')))
    return True


def strategy_name(cfg: Config) -> str:
    """The name of the config's strategy, one of those known here."""
    if not isinstance(cfg.strategy, dict):
        raise UsageError(f'strategy takes a dict: --cfg-options strategy.type={cfg.strategy}')
    kind = cfg.strategy.get('type')
    name = getattr(resolve_type(kind, STRATEGIES), '__name__', None)
    if name not in _STRATEGIES:
        names = list(_STRATEGIES)
        raise UsageError(f'strategy.type={kind} is none of {", ".join(names)}{suggest(str(kind), names)}')
    return name


def has_strategy(cfg: Config) -> bool:
    """Whether a config has a ``strategy`` or the runner for one."""
    return cfg.get('strategy') is not None or _is_flexible(cfg)


def _is_flexible(cfg: Config) -> bool:
    return resolve_type(cfg.get('runner_type'), RUNNERS) in (FlexibleRunner, RUNNERS.get(_RUNNER))


def drop_strategy(cfg: Config) -> None:
    """Test in one process without the strategy that a model was trained with: its checkpoints are whole."""
    if cfg.launcher != 'none' or not has_strategy(cfg):
        return
    if cfg.get('strategy') is not None and strategy_name(cfg) != _SINGLE:
        print(f'One process: tested without the {strategy_name(cfg)} that the config trains with.')
    cfg.pop('strategy', None)
    if _is_flexible(cfg):
        cfg.pop('runner_type')


def _move_settings(cfg: Config, name: str) -> None:
    """Settings of the ordinary runner that the FlexibleRunner would not read go to their place in the strategy."""
    for key in ('model_wrapper_cfg', 'efficient_conv_bn_eval'):
        if cfg.get(key):
            where = 'write it into strategy.model_wrapper' if key == 'model_wrapper_cfg' else 'leave it or strategy out'
            raise UsageError(f'{key} has no effect with a strategy: {where}')
    for key in ('find_unused_parameters', 'sync_bn'):
        if not cfg.get(key) or name == _SINGLE:
            continue
        if name != 'DDPStrategy':
            raise UsageError(f'{key} has no effect with {name}: leave it out')
        if key == 'sync_bn':
            cfg.strategy.setdefault(key, cfg[key])
        else:
            wrapper = cfg.strategy.setdefault('model_wrapper', ConfigDict(broadcast_buffers=False))
            wrapper.setdefault(key, True)


def _refuse_hooks(cfg: Config) -> None:
    """The FlexibleRunner loads checkpoints before hooks are ready, and with FSDP no hook sees whole weights."""
    for hook in cfg.get('custom_hooks') or ():
        if isinstance(hook, dict) and is_type(hook.get('type'), EMAHook, HOOKS, cfg.get('default_scope')):
            raise UsageError(
                'the average of the weights (EMAHook) does not work with a strategy: leave strategy out, '
                'tools/dist_train.sh distributes without it too, or train without the average: custom_hooks=[]'
            )


def _distribute_on_cpu(strategy: ConfigDict) -> None:
    """mmengine would take a GPU for each process."""
    wrapper = strategy.setdefault('model_wrapper', ConfigDict())
    if strategy.type == 'DDPStrategy':
        wrapper.setdefault('broadcast_buffers', False)  # mmengine's default, but for the GPU
        wrapper.setdefault('device_ids', None)
    else:
        wrapper.setdefault('device_id', 'cpu')
