"""Read configs for commands, with overrides, and fit them to the machine."""

import argparse
import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ..apis.configs import find_config
from ..apis.models import read_valid_config
from ..engine.running import READ_KEYS, fill_dataloaders, move_data, move_evaluators, prepare_cpu
from ..engine.schedules import fit_schedules
from ..engine.terminal import import_toolbox
from ..errors import UsageError, as_usage_error, suggest
from .arguments import add_shared


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of commands that run a config."""
    parser.add_argument(
        '--work-dir',
        help='for logs and checkpoints; default work_dirs/<config name>, or the work dir in the place of the config',
    )
    add_shared(parser, '--cfg-options')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='how processes are started'
    )
    add_shared(parser, '--trust-checkpoint')
    parser.add_argument(
        '--trust-data',
        action='store_true',
        help="read files that entries or links of a data set lead to outside the data set's folder, and run what code "
        'is in its pickles',
    )
    # torch.distributed.launch passes this one; torchrun sets the environment instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config of a command that trains or tests, see :func:`read_config`, and fit it to this machine."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    import_toolbox(cfg.default_scope)
    if not torch.cuda.is_available():
        prepare_cpu(cfg)
    if cfg.default_scope == 'mmpretrain':
        fill_dataloaders(cfg)
    return cfg


def read_config(config: str, cfg_options: Mapping[str, Any] | None = None, work_dir: str | None = None) -> Config:
    """Read a config with overrides, and import its toolbox.

    Args:
        config: as of :func:`.find_config`.
        cfg_options: settings to override, by their dotted names.
        work_dir: by default the one that stands for the config, else the config's own or ``work_dirs/<config name>``.

    Raises:
        UsageError: there is no such config, it is not valid, or an override does not fit it.
    """
    path, cfg_options = find_config(config), cfg_options or {}
    cfg = read_valid_config(path)
    for key in cfg_options:
        _check_option(cfg, key)
    before = copy.deepcopy(cfg)
    with as_usage_error(LookupError, TypeError, ValueError, AttributeError, place=f'--cfg-options do not fit {path}'):
        cfg.merge_from_dict(cfg_options)
        move_data(cfg, before)
        move_evaluators(cfg, before)
        fit_schedules(cfg, before)
    # A work dir that stands for its config may have been moved, and its config names it from where it was trained.
    given = work_dir or cfg_options.get('work_dir') or (config if Path(config).is_dir() else None)
    cfg.work_dir = given or cfg.get('work_dir') or str(Path('work_dirs') / path.stem)
    return cfg


def _check_option(cfg: Config, key: str) -> None:
    """Refuse an override that nothing would read: mmengine adds unknown keys without a word."""
    first = key.split('.')[0]
    known = {*cfg.keys(), *READ_KEYS}
    if first not in known:
        raise UsageError(f'--cfg-options {key}: the config has no {first}{suggest(first, sorted(known))}')
