"""Arguments that several commands have, and the checks of them."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import DictAction

from ..apis.configs import find_run
from ..apis.models import chosen_device
from ..apis.weights import check_checkpoint
from ..errors import UsageError
from ..measure.networks import SPECS
from ..measure.timing import DTYPES, Timing
from ..models import reduce_by_text


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


def _device(name: str) -> str:
    try:
        return chosen_device(name)
    except ValueError as error:  # argparse would replace its text
        raise UsageError(f'--device {name}: {error}') from error


_SHARED: dict[str, dict[str, Any]] = {
    '--cfg-options': dict(
        nargs='+',
        action=_Options,
        default={},
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. model.backbone.stgm_layer=6 or "key=[a,b]"',
    ),
    '--checkpoint': dict(metavar='FILE|URL', help='the weights, by default those that are published for the model'),
    '--device': dict(type=_device, default='', help='default a GPU where there is one'),
    '--dtype': dict(choices=DTYPES, default='float32', help='for mixed precision; default %(default)s'),
    '--reduce': dict(metavar='METHOD:OPTIONS', help='reduce the tokens of a plain vision transformer, e.g. tome:r=13'),
    '--threads': dict(type=int, metavar='N', help='of a CPU; default as PyTorch chooses'),
    '--trust-checkpoint': dict(
        action='store_true',
        help='unpickle checkpoints whole, so that code in them runs: only for files whose makers you know',
    ),
}


def add_shared(parser: argparse.ArgumentParser, *options: str) -> None:
    """Add options that several commands have, by their names, e.g. ``'--device'``."""
    for option in options:
        parser.add_argument(option, **_SHARED[option])


def reduced(model: torch.nn.Module, reduction: str | None) -> torch.nn.Module:
    """Return the model, with its tokens reduced where ``--reduce`` asks for it."""
    return model if reduction is None else reduce_by_text(model, reduction)


def set_threads(threads: int | None, on_gpu: bool = False) -> None:
    """Set the number of threads of PyTorch.

    Raises:
        UsageError: it is less than one, or what is run is on a GPU.
    """
    if threads is not None:
        if on_gpu:
            raise UsageError('--threads is of a CPU: leave it out, or give --device cpu')
        if threads < 1:
            raise UsageError('--threads must be at least 1')
        torch.set_num_threads(threads)


def add_network_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Add networks by a short name, with ``what`` in their help, their input size, and a file for the figures."""
    parser.add_argument('networks', nargs='+', metavar='CONFIG', help=f'{SPECS} {what}')
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help='H W of images, T H W or C T H W of clips; default the size in the test, of the first where all get the '
        'same inputs',
    )
    parser.add_argument('--json', metavar='FILE', help='write all figures there')


def add_timing_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the settings of :class:`.Timing`."""
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='all but float32 by autocast, or --cast')
    parser.add_argument('--cast', action='store_true', help='cast the weights themselves, as GPUs serve networks')
    parser.add_argument('--cuda-graph', action='store_true', help='capture the forward once, and run the CUDA graph')
    parser.add_argument('--compile', action='store_true', help='torch.compile, for each batch size anew')
    parser.add_argument(
        '--train-step',
        action='store_true',
        help='time a training step of the whole network: forward, loss (of the config; of timm cross-entropy), '
        'backward, AdamW; multiply-adds stay those of a forward',
    )
    parser.add_argument(
        '--part', choices=('model', 'backbone'), help='what is run; default the backbone of detectors, else the model'
    )
    add_repetitions(parser, Timing.rounds, Timing.min_time)


def add_repetitions(parser: argparse.ArgumentParser, rounds: int, min_time: float) -> None:
    """Add how often and how long things are timed, with these defaults."""
    parser.add_argument('--rounds', type=int, default=rounds, metavar='N', help='of timing; default %(default)s')
    parser.add_argument(
        '--min-time',
        type=float,
        default=min_time,
        metavar='SECONDS',
        help='the least time that something is run for in a round, default %(default)s',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a config with its checkpoint, or a work dir in the place of both, see :func:`find_arguments`."""
    parser.add_argument('config', help='the config file, or the work dir of a training, which has its checkpoint too')
    parser.add_argument(
        'checkpoint', nargs='?', help='a checkpoint file or its URL; of a work dir the best or the last'
    )


def find_arguments(args: argparse.Namespace) -> None:
    """Find what a work dir has, and check that there is a checkpoint.

    Raises:
        UsageError: there is none.
    """
    args.config, args.checkpoint = find_run(args.config, args.checkpoint)
    if args.checkpoint is None:
        raise UsageError(f'give a checkpoint after {args.config}, or the work dir of a training in the place of both')
    check_checkpoint(args.checkpoint)


def add_picture_arguments(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add the arguments of commands that draw into a ``folder`` below the config's work dir."""
    add_run_arguments(parser)
    parser.add_argument('inputs', nargs='*', metavar='INPUT', help='images, or of a video config clips, or folders')
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='folder for the pictures, each with the name of its input and .png; default work_dirs/<config name>/'
        + folder,
    )
    add_shared(parser, '--device', '--cfg-options', '--trust-checkpoint')


def output_file(path: str | None, option: str, endings: Sequence[str]) -> None:
    """Check the name of a file that is written at the end, and make its folder.

    Raises:
        UsageError: it has another ending, or cannot be written.
    """
    if path is None:
        return
    if Path(path).suffix not in endings:
        raise UsageError(f'{option} {path}: name it {" or ".join(f"*{ending}" for ending in endings)}')
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    if Path(path).is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f'{option} {path}: {"it is a folder" if Path(path).is_dir() else "its folder is read-only"}')
