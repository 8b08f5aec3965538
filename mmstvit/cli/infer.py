"""Predictions on images, folders of images, or videos: ``mmstvit infer``."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ..apis.configs import find_run
from ..apis.files import drawing_places, endings_of, find_inputs, has_frames, open_source, predict_files
from ..apis.models import get_model
from ..apis.results import THRESHOLD
from ..apis.rows import ROW_FILES, RowFile
from ..apis.weights import check_checkpoint
from ..errors import UsageError, one_line_errors
from ..measure.networks import quieten
from ..measure.timing import DTYPES
from .arguments import add_shared, output_file, reduced
from .common import read_config
from .tables import Tally

IMAGE_MODELS = ('mmpretrain', 'mmdet', 'mmseg')
LIMITED = {  # the toolboxes that have an option, its default, and why others have not
    'batch_size': (('mmpretrain',), 16, 'image classifiers: the other models infer one file at a time'),
    'threshold': (('mmdet',), THRESHOLD, 'detectors: leave it out'),
    'top_k': (('mmpretrain', 'mmaction'), 1, 'classifiers: leave it out'),
    'source': (IMAGE_MODELS, None, 'models of images: give the path of a video'),
    'frames': (IMAGE_MODELS, None, 'models of images: a recogniser chooses frames itself'),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Predict images, videos and all that are in folders. Of a video, a model of images predicts each '
        'frame. A file that cannot be read is reported and left out; the exit code is then 1.',
        epilog='example: mmstvit infer stvit-tiny_digits photos/ --checkpoint work_dirs/digits/epoch_40.pth '
        '--batch-size 32 --out results.jsonl --draw pictures',
    )
    parser.add_argument('model', metavar='MODEL', help='a name of `mmstvit list`, a config, or a work dir')
    parser.add_argument('inputs', metavar='INPUT', nargs='*', help='files, or folders with folders in them')
    parser.add_argument('--source', help='a camera by its number, or a video, in the place of inputs; Ctrl-C ends it')
    parser.add_argument('--frames', type=int, metavar='N', help='frames of a camera or video to predict; default all')
    add_shared(parser, '--checkpoint', '--reduce', '--device')
    parser.add_argument('--batch-size', type=int, metavar='N', help='images of a classifier run together; default 16')
    parser.add_argument(
        '--threshold', type=float, metavar='SCORE', help=f'least score of an object; default {THRESHOLD}'
    )
    parser.add_argument(
        '--top-k', '--topk', type=int, metavar='K', help='show the K best classes of a classifier; default 1'
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='write a line of JSON for each file to FILE.jsonl, or a row with its best classes, of a detector one for '
        'each object, of a segmentor one for each class, to FILE.csv, as soon as it is inferred',
    )
    parser.add_argument(
        '--draw', metavar='FOLDER', type=Path, help='draw each prediction into a picture there, of videos into an mp4'
    )
    add_shared(parser, '--dtype', '--trust-checkpoint')
    return parser.parse_intermixed_args(argv)  # inputs may stand behind options


def _check_limited(args: argparse.Namespace, scope: str) -> None:
    """Refuse options that this toolbox has not, and fill in defaults; where an option has no effect it is 1."""
    for name, (scopes, default, reason) in LIMITED.items():
        option, value = f'--{name.replace("_", "-")}', getattr(args, name)
        if value is None:
            setattr(args, name, default if default is None or scope in scopes else 1)
        elif scope not in scopes:
            raise UsageError(f'{option} is for {reason}')
        elif isinstance(value, int) and value < 1:
            raise UsageError(f'{option} {value}: it must be at least 1')


def run(args: argparse.Namespace) -> bool:
    """Infer all files, print and write what is predicted, and return whether all could be read."""
    output_file(args.out, '--out', ROW_FILES)
    check_checkpoint(args.checkpoint)
    args.model, args.checkpoint = find_run(args.model, args.checkpoint)
    cfg = read_config(args.model)
    scope = cfg.default_scope
    _check_limited(args, scope)
    if bool(args.inputs) == (args.source is not None):
        raise UsageError('give files or folders, or else one --source')
    files = find_inputs(args.inputs, endings_of(scope)) if args.inputs else [open_source(args.source)]
    frames = any(has_frames(file, scope) for file in files)
    if args.frames is not None and not frames:
        raise UsageError('--frames is for videos: leave it out')
    draw = None if args.draw is None else drawing_places(files, args.draw)
    model = reduced(get_model(cfg, args.checkpoint or True, args.device, args.trust_checkpoint), args.reduce)
    predictions = predict_files(
        model, files, args.batch_size, args.threshold, draw, args.top_k, DTYPES[args.dtype], args.frames
    )
    tally, stderr = Tally('frames' if frames else 'files'), Console(stderr=True)
    with ExitStack() as stack:
        stack.enter_context(suppress(KeyboardInterrupt) if args.source else nullcontext())
        stack.enter_context(closing(predictions))
        bar = stack.enter_context(Progress(console=stderr, disable=not stderr.is_terminal, transient=True))
        out = args.out and stack.enter_context(RowFile(args.out, scope, args.top_k, frames))
        for row in bar.track(predictions, total=None if frames else len(files), description='inferring'):
            if out:
                out.write(row)
            if 'error' in row:
                stderr.print(f'error: {row["error"]}', soft_wrap=True, highlight=False, markup=False)
            tally.add(row)
    tally.print()
    return not tally.failed


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 1 where a file could not be read."""
    with one_line_errors():
        args = parse_args(argv)
        quieten()
        return 0 if run(args) else 1
