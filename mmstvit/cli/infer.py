"""Predictions on images, folders of images, or videos: ``mmstvit infer``."""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ..apis.configs import find_config
from ..apis.files import IMAGES, VIDEOS, find_inputs
from ..apis.inputs import INPUT_ERRORS
from ..apis.models import chosen_device, inference_stream, toolbox_of
from ..apis.results import THRESHOLD, drawn, record, shown
from ..apis.weights import check_checkpoint, chosen_weights, load_model
from ..errors import UsageError, one_line, one_line_errors
from ..measure.figures import console
from ..measure.networks import quieten
from ..visualization.pictures import write_png
from .common import add_trust_argument, output_file

ROWS = 40  # of the table; of more files the classes are counted


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Predict images, all images of folders, or videos, as the model takes them. A file that cannot be '
        'read is told and left out; the exit code is then 1.',
        epilog='example: mmstvit infer stvit-tiny_digits photos/ --checkpoint work_dirs/digits/epoch_40.pth '
        '--batch-size 32 --out results.jsonl --draw pictures',
    )
    parser.add_argument('model', metavar='MODEL', help='a name of `mmstvit list`, or the path of a config')
    parser.add_argument('inputs', metavar='INPUT', nargs='+', help='files, or folders with folders in them')
    parser.add_argument(
        '--checkpoint', metavar='FILE|URL', help='the weights, by default those that are published for the model'
    )
    parser.add_argument(
        '--batch-size', type=int, metavar='N', help='images run together, of a classifier alone; default 16'
    )
    parser.add_argument('--device', help='default a GPU where there is one')
    parser.add_argument(
        '--threshold', type=float, metavar='SCORE', help=f'least score of an object that is told; default {THRESHOLD}'
    )
    parser.add_argument(
        '--out', metavar='FILE.jsonl', help='write a line of JSON for each file, as soon as it is inferred'
    )
    parser.add_argument('--draw', metavar='FOLDER', type=Path, help='draw each prediction into a picture there')
    add_trust_argument(parser)
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace, scope: str) -> None:
    """Fill in the defaults, and refuse what cannot take effect on a model of this toolbox.

    Raises:
        UsageError: as said.
    """
    if scope != 'mmpretrain' and args.batch_size is not None:
        raise UsageError('--batch-size is for image classifiers: detectors and recognisers infer one file at a time')
    if scope != 'mmdet' and args.threshold is not None:
        raise UsageError('--threshold is for detectors: leave it out')
    args.batch_size = (16 if scope == 'mmpretrain' else 1) if args.batch_size is None else args.batch_size
    args.threshold = THRESHOLD if args.threshold is None else args.threshold
    if args.batch_size < 1:
        raise UsageError(f'--batch-size {args.batch_size}: it must be at least 1')


def summary(rows: Sequence[tuple[str, str]], counted: Counter) -> Table:
    """A row for each file, or, of many, how often each class was found."""
    if len(rows) <= ROWS:
        table = Table('file', 'prediction')
        for row in rows:
            table.add_row(*row)
        return table
    table = Table('class', 'files')
    table.columns[1].justify = 'right'
    for name, number in counted.most_common():
        table.add_row(name, str(number))
    return table


def run(args: argparse.Namespace) -> bool:
    """Infer all files; whether all could be read.

    Raises:
        UsageError: an argument is wrong or has no effect.
    """
    output_file(args.out, '--out', ('.jsonl',))
    check_checkpoint(args.checkpoint)
    config = find_config(args.model)
    cfg = Config.fromfile(config)
    scope = toolbox_of(cfg)
    check_args(args, scope)
    files = find_inputs(args.inputs, VIDEOS if scope == 'mmaction' else IMAGES)
    weights = chosen_weights(args.checkpoint, args.model, config)
    model = load_model(cfg, weights, chosen_device(args.device), args.trust_checkpoint)
    common = os.path.commonpath([file.parent for file in files])
    # Of many files there is no room for all that was found.
    rows, counted, failed = [], Counter(), 0
    begin, stderr = time.perf_counter(), Console(stderr=True)
    with ExitStack() as stack:
        out = stack.enter_context(open(args.out, 'w', encoding='utf-8')) if args.out else None
        bar = stack.enter_context(Progress(console=stderr, disable=not stderr.is_terminal, transient=True))
        options = dict(progress=False) if scope == 'mmaction' else {}  # there is one bar for all files
        results = inference_stream(model, files, args.batch_size, **options)
        for file, result in zip(bar.track(files, description='inferring'), results, strict=True):
            if isinstance(result, INPUT_ERRORS):
                found = dict(file=str(file), error=one_line(result))
                stderr.print(f'error: {one_line(result)}', soft_wrap=True, highlight=False, markup=False)
                failed += 1
            else:
                found = dict(file=str(file), **record(result, scope, model, args.threshold))
                counted.update(
                    {one['class'] for one in found['objects']} if 'objects' in found else [found['pred_class']]
                )
                if args.draw:
                    picture = drawn(result, found, scope, model, args.threshold)
                    write_png(args.draw / f'{file.relative_to(common)}.png', picture)
            rows.append((str(file), shown(found)))
            if out:
                out.write(json.dumps(found) + '\n')
                out.flush()  # what was inferred is there whatever happens next
    taken = time.perf_counter() - begin
    console().print(summary(rows, counted))
    told = f'{len(files)} files in {taken:.1f} s, {len(files) / taken:.1f} a second'
    print(told + (f'; {failed} could not be read' if failed else ''))
    return not failed


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 1 where a file could not be read."""
    with one_line_errors():
        args = parse_args(argv)
        quieten()
        return 0 if run(args) else 1
