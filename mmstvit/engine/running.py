"""Prepare a config and build what runs it, in any of the toolboxes, with or without a GPU."""

import inspect
import os
from collections.abc import Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_distributed
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS, RUNNERS
from mmengine.runner import Runner
from mmengine.utils import get_object_from_string

from ..errors import UsageError
from ..paths import is_address
from ..registry import is_type, resolve_type, type_name
from .datasets import LOADERS, configured
from .strategy import choose_strategy

# What draws predictions on images.
_VISUALIZERS = {
    'mmpretrain': 'UniversalVisualizer',
    'mmdet': 'DetLocalVisualizer',
    'mmseg': 'SegLocalVisualizer',
}
_DRAWING_HOOKS = {
    'mmpretrain': 'ClassDrawingHook',
    'mmdet': 'ImageDrawingHook',
    'mmseg': 'ImageDrawingHook',
    'mmaction': 'ClipDrawingHook',
}
_NOT_OF_VISUALIZER = ('type', 'enable', 'interval', 'show', 'out_dir')  # settings of mmpretrain's hook itself

# Keys at the top of a config that are read by the runner or by the commands.
READ_KEYS = {
    *inspect.signature(Runner.__init__).parameters,
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'data_preprocessor',
    'data_checks',
    'default_scope',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'strategy',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
} - {'self', 'cfg'}
_RUNNER = 'mmstvit.Runner'


def prepare_cpu(cfg: Config) -> None:
    """Replace settings that need a GPU: the toolboxes' default runtimes and some of their configs have them."""
    env_cfg = cfg.setdefault('env_cfg', ConfigDict())
    dist_cfg = env_cfg.setdefault('dist_cfg', ConfigDict(backend='nccl'))
    if dist_cfg.get('backend', 'nccl') == 'nccl':
        dist_cfg.backend = 'gloo'
    optim_wrapper = cfg.get('optim_wrapper') or {}
    if is_type(optim_wrapper.get('type'), AmpOptimWrapper, OPTIM_WRAPPERS, cfg.get('default_scope')):
        print('No GPU is visible: training without the automatic mixed precision that the config asks for.')
        optim_wrapper['type'] = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            optim_wrapper.pop(key, None)


def fill_dataloaders(cfg: Config) -> None:
    """The settings that mmpretrain's own commands add to its configs, and those configs count on."""
    for name in LOADERS:
        dataloader = cfg.get(name)
        if isinstance(dataloader, dict):
            dataloader.setdefault('collate_fn', ConfigDict(type='default_collate'))
            dataloader.setdefault('pin_memory', torch.cuda.is_available())
            dataloader.setdefault('persistent_workers', dataloader.get('num_workers', 0) > 0)


def check_data(cfg: Config, names: Sequence[str]) -> None:
    """Refuse to start where the data set of one of the dataloaders ``names`` is not there."""
    for key, dataset in configured(cfg, *names):
        # mmaction2's configs have no data_root, their annotation files lie below the working folder.
        what = 'data_root' if dataset.get('data_root') else 'ann_file'
        place = dataset.get(what)
        if not isinstance(place, str) or not place or is_address(place):
            continue
        if not Path(place).exists() or (Path(place).is_dir() and not any(Path(place).iterdir())):
            get = f'make it with {cfg.prepare_data}' if 'prepare_data' in cfg else 'put or link it there'
            raise UsageError(
                f'there is no data set at {place}: {get}, or name its place with --cfg-options {key}.{what}=PATH'
            )


def move_data(cfg: Config, before: Config) -> None:
    """Let data sets in the ``data_root`` at the top of a config follow it, where it differs from ``before``."""
    old, new = before.get('data_root'), cfg.get('data_root')
    for _, dataset in configured(cfg, *LOADERS) if old != new else ():
        if dataset.get('data_root') == old:
            dataset['data_root'] = new


def move_evaluators(cfg: Config, before: Config) -> None:
    """Let evaluators follow the data sets whose ``data_root`` differs from that of ``before``.

    Their files lie below the data set's folder, but are given from the working folder. What is no longer as it was
    there is left.
    """
    for name in ('val', 'test'):
        key = f'{name}_evaluator'
        sets, others = (configured(c, f'{name}_dataloader') for c in (cfg, before))
        for (_, dataset), (_, other) in zip(sets, others, strict=False):
            old, new = other.get('data_root'), dataset.get('data_root')
            if old and new and old != new and cfg.get(key) == before.get(key):
                cfg[key] = _moved(cfg[key], os.path.join(old, ''), new)


def _moved(part: Any, old: str, new: str) -> Any:
    if isinstance(part, (list, tuple)):
        return [_moved(value, old, new) for value in part]
    if not isinstance(part, dict):
        return part
    moved = {key: _moved(value, old, new) for key, value in part.items() if key == 'metrics'}
    file = part.get('ann_file')
    if isinstance(file, str) and file.startswith(old):
        moved['ann_file'] = os.path.join(new, file.removeprefix(old))
    return ConfigDict(part, **moved)


def add_hook(cfg: Config, kind: str, **settings: Any) -> None:
    """Write a hook into a config, in the place of one of its kind."""
    cls, scope = resolve_type(kind, HOOKS), cfg.get('default_scope')
    hooks = cfg.get('custom_hooks') or ()
    others = [h for h in hooks if not (isinstance(h, dict) and resolve_type(h.get('type'), HOOKS, scope) is cls)]
    cfg.custom_hooks = [*others, ConfigDict(type=kind, **settings)]


def add_curves(cfg: Config, tensorboard: bool = False, wandb: str | None = None) -> None:
    """Let a config's visualizer send curves and pictures to TensorBoard or Weights & Biases too.

    Args:
        cfg: what its visualizer has stays.
        tensorboard: whether files of events are written beside the log.
        wandb: the project, an empty text for W&B's own choice; ``None`` for none.

    Raises:
        UsageError: the package is not installed.
    """
    additional = {}
    if tensorboard:
        additional['tensorboard'] = ConfigDict(type='mmengine.TensorboardVisBackend')
    if wandb is not None:
        settings = dict(init_kwargs=dict(project=wandb)) if wandb else {}
        additional['wandb'] = ConfigDict(type='mmengine.WandbVisBackend', **settings)
    for package, backend in additional.items():
        if find_spec(package) is None:
            raise UsageError(f'--{package} needs the package {package}: pip install {package}')
        visualizer = cfg.get('visualizer') or ConfigDict(type='mmengine.Visualizer')
        backends = visualizer.get('vis_backends') or [ConfigDict(type='mmengine.LocalVisBackend')]
        others = [one for one in backends if type_name(one) != type_name(backend)]
        cfg.visualizer = ConfigDict(visualizer, vis_backends=[*others, backend])


def build_runner(cfg: Config, trust_data: bool = False) -> Runner:
    """Write the runner that checks files, and what it is told, into a config, and build it.

    Args:
        cfg: a ``runner_type`` that is not mmengine's is kept.
        trust_data: whether names and links may lead out of a data set's folder, and code in its files may run.

    Raises:
        UsageError: the runner or the strategy does not fit the rest of the config.
    """
    checks = cfg.setdefault('data_checks', ConfigDict())
    checks.trust_data = trust_data or checks.get('trust_data', False)
    if not choose_strategy(cfg):
        kind = resolve_type(cfg.setdefault('runner_type', _RUNNER), RUNNERS)
        if kind is Runner:
            cfg.runner_type = _RUNNER
        # What is unknown is told by the registry.
        elif not (checks.trust_data or kind is None or issubclass(kind, RUNNERS.get(_RUNNER))):
            raise UsageError(
                f'runner_type={cfg.runner_type} does not check the files of data sets: derive it from mmstvit.Runner, '
                'or give --trust-data if you know who made them'
            )
    if cfg.get('activation_checkpointing'):
        add_hook(cfg, 'mmstvit.ActivationCheckpointingHook', modules=cfg.pop('activation_checkpointing'))
    if cfg.launcher != 'none' and not torch.cuda.is_available():
        _connect_on_cpu(cfg)
    if not torch.cuda.is_available() and _replace_sync_bn(cfg.model):
        print('No GPU is visible: batch norm that the config synchronises is that of each process.')
    for key in [key for key, value in cfg.items() if isinstance(value, type) and key != 'runner_type']:
        cfg.pop(key)  # what the config imports
    _name_types(cfg._cfg_dict)
    return RUNNERS.build(cfg)


def dumpable(cfg: Config) -> Config:
    """Drop what no runner reads from a config, variables and imports, and name its types, so that it can be written."""
    for key in set(cfg) - {*READ_KEYS} | {'work_dir'} & set(cfg):
        cfg.pop(key)
    _name_types(cfg._cfg_dict)
    return cfg


def _name_types(part: Any) -> None:
    """Replace classes that are given as ``type`` by their names: a dumped config with classes cannot be read."""
    for value in part.values() if isinstance(part, dict) else part:
        if isinstance(value, (dict, list, tuple)):
            _name_types(value)
    kind = part.get('type') if isinstance(part, dict) else None
    name = f'{getattr(kind, "__module__", None)}.{getattr(kind, "__qualname__", None)}'
    if callable(kind) and get_object_from_string(name) is kind:
        part['type'] = name


def _replace_sync_bn(part: Any) -> bool:
    """Replace synchronised batch norm, which needs a GPU, in a config or a part of it; whether there was any."""
    if isinstance(part, dict):
        is_sync = type_name(part) in ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')
        if is_sync:
            part['type'] = 'BN'
        return any([is_sync, *map(_replace_sync_bn, part.values())])
    return isinstance(part, (list, tuple)) and any([*map(_replace_sync_bn, part)])


def _connect_on_cpu(cfg: Config) -> None:
    """Connect the processes where there is no GPU: mmengine would pick one for each and fail."""
    if cfg.launcher != 'pytorch':
        raise UsageError(f'--launcher {cfg.launcher} needs a GPU and none is visible: on a CPU use tools/dist_train.sh')
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if missing:
        raise UsageError('--launcher pytorch is for processes that torchrun starts: use tools/dist_train.sh')
    if not is_distributed():
        timeout = timedelta(seconds=cfg.env_cfg.dist_cfg.get('timeout', 1800))
        torch.distributed.init_process_group(cfg.env_cfg.dist_cfg.backend, timeout=timeout)
    if cfg.get('strategy') is None and cfg.get('model_wrapper_cfg') is None:
        # mmengine's default, but for the GPU of the process.
        cfg.model_wrapper_cfg = ConfigDict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def draw_predictions(cfg: Config, folder: str, interval: int) -> None:
    """Let a test draw its predictions into a folder.

    Args:
        cfg: its config, which is changed.
        folder: for the pictures.
        interval: every how many samples one is drawn.

    Raises:
        UsageError: an interval that cannot take effect.
    """
    if interval < 1:
        raise UsageError(f'--interval {interval}: it must be at least 1')
    scope = cfg.default_scope
    if scope != 'mmaction':  # whose hook needs none
        cfg.setdefault('visualizer', ConfigDict(type=_VISUALIZERS[scope]))
    own: dict = (cfg.get('default_hooks') or {}).get('visualization') or {}
    options: dict = {}
    if scope == 'mmpretrain':
        options = {name: value for name, value in own.items() if name not in _NOT_OF_VISUALIZER}
    elif scope == 'mmdet' and 'score_thr' in own:
        options = dict(pred_score_thr=own['score_thr'])
    add_hook(cfg, f'mmstvit.{_DRAWING_HOOKS[scope]}', folder=folder, interval=interval, **options)
