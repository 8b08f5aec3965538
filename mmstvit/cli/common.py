"""What the commands share: their arguments, reading a config, choosing the toolbox."""

import argparse
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from ..apis.configs import find_config
from ..apis.models import TOOLBOXES, toolbox_of
from ..engine.running import fill_dataloaders, prepare_cpu
from ..errors import UsageError, one_line, suggest

# Keys at the top of a config that are read by the runner or by these commands, beside those a config has already.
_EXTRA_KEYS = {
    'activation_checkpointing',
    'compile',
    'custom_imports',
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
        prepare_cpu(cfg)
    if scope == 'mmpretrain':
        fill_dataloaders(cfg)
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
