"""What the commands share: their arguments, reading a config, choosing the toolbox."""

import argparse
import difflib
import inspect
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dist import is_distributed
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..apis.models import TOOLBOXES, model_index, toolbox_of
from ..paths import package_data
from .errors import UsageError, one_line, suggest
from .strategy import build_flexible_runner, choose_strategy

# Keys at the top of a config that are read by the runner or by these commands, beside those a config has already.
_EXTRA_KEYS = {
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'default_scope',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'strategy',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}


class _Options(DictAction):
    """``KEY=VALUE`` pairs; mmengine's own action dies where there is no ``=``."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        for value in values:
            if '=' not in value:
                parser.error(f'{option_string} takes KEY=VALUE, got {value}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, IndexError, RecursionError, ValueError):  # brackets that do not match
            parser.error(f'{option_string} cannot be read: {" ".join(values)}')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that runs a config."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default work_dirs/<config name>')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        default={},
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. model.backbone.stgm_layer=6 or "key=[a,b]"',
    )
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='how processes are started'
    )
    add_trust_argument(parser)
    parser.add_argument(
        '--trust-data',
        action='store_true',
        help="read files that entries or links of a data set lead to outside the data set's folder, and run what code "
        'is in its pickles',
    )
    # torch.distributed.launch passes this one; torchrun sets the environment instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """The argument of every command that reads a checkpoint."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle checkpoints whole, so that code in them runs: only for files whose makers you know',
    )


def find_config(path: str) -> Path:
    """A config file by its path, by its path below the ``configs`` of the installed package, or a model's by its name.

    Raises:
        UsageError: there is none.
    """
    root = package_data()
    for candidate in (Path(path), root / path, root / 'configs' / path):
        if candidate.is_file():
            return candidate
    if entry := model_index().get(path):
        return Path(entry['Config'])
    known = {p.stem: p.relative_to(root) for p in (root / 'configs').rglob('*.py')}
    near = difflib.get_close_matches(Path(path).stem, list(known), n=1)
    hint = f'did you mean {known[near[0]]}?' if near else f'those of mmstvit are in {root / "configs"}'
    raise UsageError(f'there is no config {path}; {hint}')


def load_config(args: argparse.Namespace) -> Config:
    """Read the config that a command was given, with its options, and make its toolbox ready."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    path = find_config(args.config)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program: it may raise anything
        line = f'{path} is no valid config: {one_line(error)} ({type(error).__name__})'
        raise UsageError(line + _extra_for(error)) from error
    for key in args.cfg_options:
        _check_option(cfg, key)
    try:
        cfg.merge_from_dict(args.cfg_options)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UsageError(f'--cfg-options do not fit {path}: {one_line(error)}') from error
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / path.stem)
    try:
        scope = toolbox_of(cfg)
    except (ImportError, ValueError) as error:
        raise UsageError(one_line(error)) from error
    if not torch.cuda.is_available():
        _prepare_cpu(cfg)
    if scope == 'mmpretrain':
        _fill_dataloaders(cfg)
    return cfg


def _extra_for(error: Exception) -> str:
    """How to install the toolbox whose ``_base_`` was not found."""
    missing = [extra for scope, extra in TOOLBOXES.items() if str(error).startswith(scope)]
    return f": pip install 'mmstvit[{missing[0]}]'" if isinstance(error, ImportError) and missing else ''


def _check_option(cfg: Config, key: str) -> None:
    """Refuse an override that nothing would read: mmengine adds unknown keys without a word."""
    first = key.split('.')[0]
    known = {*cfg.keys(), *inspect.signature(Runner.__init__).parameters, *_EXTRA_KEYS} - {'self', 'cfg'}
    if first not in known:
        raise UsageError(f'--cfg-options {key}: the config has no {first}{suggest(first, sorted(known))}')


def _prepare_cpu(cfg: Config) -> None:
    """Replace settings that need a GPU: the toolboxes' default runtimes and some of their configs have them."""
    env_cfg = cfg.setdefault('env_cfg', ConfigDict())
    dist_cfg = env_cfg.setdefault('dist_cfg', ConfigDict(backend='nccl'))
    if dist_cfg.get('backend', 'nccl') == 'nccl':
        dist_cfg.backend = 'gloo'
    optim_wrapper = cfg.get('optim_wrapper') or {}
    if str(optim_wrapper.get('type')).endswith('AmpOptimWrapper'):
        print('No GPU is visible: training without the automatic mixed precision that the config asks for.')
        optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            optim_wrapper.pop(key, None)


def _fill_dataloaders(cfg: Config) -> None:
    """The settings that mmpretrain's own commands add to its configs, and those configs count on."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataloader = cfg.get(name)
        if isinstance(dataloader, dict):
            dataloader.setdefault('collate_fn', ConfigDict(type='default_collate'))
            dataloader.setdefault('pin_memory', torch.cuda.is_available())
            dataloader.setdefault('persistent_workers', dataloader.get('num_workers', 0) > 0)


def check_data(cfg: Config, names: Sequence[str]) -> None:
    """Refuse to start where the data set of one of the dataloaders ``names`` is not there."""
    for name in names:
        for key, dataset in _datasets((cfg.get(name) or {}).get('dataset'), f'{name}.dataset'):
            # mmaction2's configs have no data_root, their annotation files lie below the working folder.
            what = 'data_root' if dataset.get('data_root') else 'ann_file'
            place = dataset.get(what)
            if place and isinstance(place, str) and '://' not in place and _is_absent(Path(place)):
                get = f'make it with {cfg.prepare_data}' if 'prepare_data' in cfg else 'put or link it there'
                raise UsageError(
                    f'there is no data set at {place}: {get}, or name its place with --cfg-options {key}.{what}=PATH'
                )


def _is_absent(place: Path) -> bool:
    return not place.exists() or (place.is_dir() and not any(place.iterdir()))


def _datasets(dataset: Any, key: str) -> Iterator[tuple[str, dict]]:
    """The data sets inside RepeatDataset, ConcatDataset and the like, with their places in the config."""
    if not isinstance(dataset, dict):
        return
    if isinstance(dataset.get('dataset'), dict):
        yield from _datasets(dataset['dataset'], f'{key}.dataset')
    elif isinstance(dataset.get('datasets'), (list, tuple)):
        for i, part in enumerate(dataset['datasets']):
            yield from _datasets(part, f'{key}.datasets.{i}')
    else:
        yield key, dataset


def output_file(path: str | None, option: str, endings: Sequence[str]) -> None:
    """Check the name of a file that is written at the end, and make its folder.

    Raises:
        UsageError: it has another ending.
    """
    if path is None:
        return
    if Path(path).suffix not in endings:
        raise UsageError(f'{option} {path}: name it {" or ".join(f"*{ending}" for ending in endings)}')
    Path(path).parent.mkdir(parents=True, exist_ok=True)


def build_runner(cfg: Config) -> Runner:
    """The runner that the config asks for."""
    has_strategy = choose_strategy(cfg)
    if cfg.launcher != 'none' and not torch.cuda.is_available():
        _connect_on_cpu(cfg)
    if not torch.cuda.is_available() and _replace_sync_bn(cfg.model):
        print('No GPU is visible: batch norm that the config synchronises is that of each process.')
    if has_strategy:
        return build_flexible_runner(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if cfg.get('compile'):
        compile_method = runner._maybe_compile
        # mmengine would compile the whole step, where torch.compile fails on the optimizer's groups.
        runner._maybe_compile = lambda target: compile_method('forward')
    return runner


def _replace_sync_bn(part: Any) -> bool:
    """Replace synchronised batch norm, which needs a GPU, in a config or a part of it; whether there was any."""
    if isinstance(part, dict):
        found = part.get('type') == 'SyncBN'
        if found:
            part['type'] = 'BN'
        return any([found, *map(_replace_sync_bn, part.values())])
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
