"""What the commands share: reading a config, choosing the toolbox, and errors in one line."""

import argparse
import contextlib
import difflib
import inspect
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..apis.models import toolbox_of
from ..paths import package_data

# Keys at the top of a config that are read by the runner or by these commands, beside those a config has already.
_EXTRA_KEYS = {'runner_type', 'tta_model', 'tta_pipeline', 'default_scope'}

TRACEBACK = 'MMSTVIT_TRACEBACK'


class UsageError(Exception):
    """Something the user can mend; its text is one line that says how."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with exit code 2 and one line for what the user can mend, 130 for Ctrl-C.

    Errors from inside torch (a kernel, a CUDA device) and from programming keep their traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except (UsageError, OSError, ImportError, KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        print(f'error: {describe(error)}', file=sys.stderr)
        sys.exit(2)


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, KeyError) and len(error.args) == 1:
        text = str(error.args[0])  # str() of a KeyError is a repr
    elif isinstance(error, OSError) and error.strerror and error.filename:
        text = f'{error.strerror}: {error.filename}'
    else:
        text = str(error)
    text = ' '.join(text.split()) or type(error).__name__
    if isinstance(error, UsageError):
        return text
    return f'{text} ({type(error).__name__}; {TRACEBACK}=1 shows where)'


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that runs a config."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default work_dirs/<config name>')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. model.backbone.stgm_layer=6 or "key=[a,b]"',
    )
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='how processes are started'
    )
    # torch.distributed.launch passes this one; torchrun sets the environment instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def suggest(name: str, known: Sequence[str]) -> str:
    """``'; did you mean X?'`` for the nearest of the known names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f'; did you mean {near[0]}?' if near else ''


def find_config(path: str) -> Path:
    """A config file by its path, or by its path below the ``configs`` of the installed package."""
    root = package_data()
    for candidate in (Path(path), root / path, root / 'configs' / path):
        if candidate.is_file():
            return candidate
    known = {p.name: p.relative_to(root) for p in (root / 'configs').rglob('*.py')}
    near = difflib.get_close_matches(Path(path).name, list(known), n=1)
    raise UsageError(f'there is no config {path}' + (f'; did you mean {known[near[0]]}?' if near else ''))


def load_config(args: argparse.Namespace) -> Config:
    """Read the config that a command was given, with its options, and make its toolbox ready."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    path = find_config(args.config)
    try:
        cfg = Config.fromfile(path)
    except (SyntaxError, NameError) as error:
        raise UsageError(f'{path} is no valid config: {error}') from error
    for key in args.cfg_options:
        _check_option(cfg, key)
    cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / path.stem)
    toolbox_of(cfg)
    if not torch.cuda.is_available():
        _prepare_cpu(cfg)
    return cfg


def _check_option(cfg: Config, key: str) -> None:
    """Refuse an override that nothing would read: mmengine adds unknown keys without a word."""
    first = key.split('.')[0]
    known = {*cfg.keys(), *inspect.signature(Runner.__init__).parameters, *_EXTRA_KEYS} - {'self', 'cfg'}
    if first not in known:
        raise UsageError(f'--cfg-options {key}: the config has no {first}{suggest(first, sorted(known))}')


def _prepare_cpu(cfg: Config) -> None:
    """Settings that make sense on a GPU alone: the toolboxes' default runtimes have them."""
    dist_cfg = cfg.get('env_cfg', {}).get('dist_cfg')
    if dist_cfg and dist_cfg.get('backend') == 'nccl':
        dist_cfg.backend = 'gloo'


def check_checkpoint(path: str | None) -> None:
    """Refuse a local checkpoint that is not there; other schemes are left to mmengine."""
    if path is not None and '://' not in path and not Path(path).expanduser().is_file():
        raise UsageError(f'there is no checkpoint {path}')


def check_data(cfg: Config, names: Sequence[str]) -> None:
    """Refuse to start where the data set of one of the dataloaders ``names`` is not there."""
    for name in names:
        key, dataset = f'{name}.dataset', (cfg.get(name) or {}).get('dataset')
        while dataset and dataset.get('dataset'):  # RepeatDataset and the like
            key, dataset = f'{key}.dataset', dataset['dataset']
        root = (dataset or {}).get('data_root')
        if root and '://' not in root and not Path(root).exists():
            raise UsageError(
                f'there is no data set at {root}: put or link it there, or name its place with '
                f'--cfg-options {key}.data_root=PATH'
            )


def build_runner(cfg: Config) -> Runner:
    """The runner that the config asks for."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
