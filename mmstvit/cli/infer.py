"""Predictions on images, folders of images, or videos: ``mmstvit infer``."""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ..apis.configs import find_run
from ..apis.files import IMAGES, VIDEOS, find_inputs, predict_files
from ..apis.models import get_model
from ..apis.results import THRESHOLD, as_line
from ..apis.weights import check_checkpoint
from ..console import console, print_table
from ..errors import UsageError, one_line_errors
from ..measure.networks import quieten
from ..measure.timing import DTYPES
from .arguments import (
    add_checkpoint_argument,
    add_device_argument,
    add_reduce_argument,
    add_trust_argument,
    output_file,
    reduced,
)
from .common import read_config
from .tables import summary

LIMITED = {  # the toolboxes that have an option, its default, and why others have not
    'batch_size': (('mmpretrain',), 16, 'image classifiers: detectors and recognisers infer one file at a time'),
    'threshold': (('mmdet',), THRESHOLD, 'detectors: leave it out'),
    'top_k': (('mmpretrain', 'mmaction'), 1, 'classifiers: leave it out'),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Predict images, all images of folders, or videos, as the model takes them. A file that cannot be '
        'read is reported and left out; the exit code is then 1.',
        epilog='example: mmstvit infer stvit-tiny_digits photos/ --checkpoint work_dirs/digits/epoch_40.pth '
        '--batch-size 32 --out results.jsonl --draw pictures',
    )
    parser.add_argument(
        'model', metavar='MODEL', help='a name of `mmstvit list`, a config, or the work dir of a training'
    )
    parser.add_argument('inputs', metavar='INPUT', nargs='+', help='files, or folders with folders in them')
    add_checkpoint_argument(parser)
    add_reduce_argument(parser)
    parser.add_argument('--batch-size', type=int, metavar='N', help='images of a classifier run together; default 16')
    add_device_argument(parser)
    parser.add_argument(
        '--threshold', type=float, metavar='SCORE', help=f'least score of an object; default {THRESHOLD}'
    )
    parser.add_argument('--top-k', type=int, metavar='K', help='show the K best classes of a classifier; default 1')
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='for mixed precision; default %(default)s')
    parser.add_argument(
        '--out', metavar='FILE.jsonl', help='write a line of JSON for each file, as soon as it is inferred'
    )
    parser.add_argument('--draw', metavar='FOLDER', type=Path, help='draw each prediction into a picture there')
    add_trust_argument(parser)
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace, scope: str) -> None:
    """Fill in the defaults, and raise ``UsageError`` for what cannot take effect on a model of this toolbox."""
    for name, (scopes, default, reason) in LIMITED.items():
        option, value = f'--{name.replace("_", "-")}', getattr(args, name)
        if value is None:
            setattr(args, name, default if scope in scopes else 1)
        elif scope not in scopes:
            raise UsageError(f'{option} is for {reason}')
        elif isinstance(value, int) and value < 1:
            raise UsageError(f'{option} {value}: it must be at least 1')


def run(args: argparse.Namespace) -> bool:
    """Infer all files, print and write what is predicted, and return whether all could be read."""
    output_file(args.out, '--out', ('.jsonl',))
    check_checkpoint(args.checkpoint)
    if Path(args.model).is_dir():
        args.model, checkpoint = map(str, find_run(Path(args.model)))
        args.checkpoint = args.checkpoint or checkpoint
    cfg = read_config(args.model)
    check_args(args, cfg.default_scope)
    files = find_inputs(args.inputs, VIDEOS if cfg.default_scope == 'mmaction' else IMAGES)
    model = reduced(get_model(cfg, args.checkpoint or True, args.device, args.trust_checkpoint), args.reduce)
    # Of many files there is no room for all predictions.
    rows, counted, failed = [], Counter(), 0
    begin, stderr = time.perf_counter(), Console(stderr=True)
    dtype = DTYPES[args.dtype]
    predictions = predict_files(model, files, args.batch_size, args.threshold, args.out, args.draw, args.top_k, dtype)
    with Progress(console=stderr, disable=not stderr.is_terminal, transient=True) as bar:
        for row in bar.track(predictions, total=len(files), description='inferring'):
            if 'error' in row:
                stderr.print(f'error: {row["error"]}', soft_wrap=True, highlight=False, markup=False)
                failed += 1
            else:
                counted.update({one['class'] for one in row['objects']} if 'objects' in row else [row['pred_class']])
            rows.append((row['file'], as_line(row)))
    seconds = time.perf_counter() - begin
    print_table(console(), summary(rows, counted))
    line = f'{len(files)} files in {seconds:.1f} s, {len(files) / seconds:.1f} a second'
    print(line + (f'; {failed} could not be read' if failed else ''))
    return not failed


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 1 where a file could not be read."""
    with one_line_errors():
        args = parse_args(argv)
        quieten()
        return 0 if run(args) else 1
