"""Export a model of any of the toolboxes to a file that other runtimes run: ``tools/deployment/export.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..apis.models import get_model
from ..deploy.export import Exported, export_model, format_of
from ..deploy.formats import DTYPES, FORMATS
from ..deploy.int8 import IMAGES, MIN_AGREEMENT, Calibration
from ..errors import UsageError, one_line_errors
from ..io.outputs import refuse_overwriting
from .arguments import add_run_arguments, add_shared, find_arguments, reduced
from .common import read_config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Write a classifier (its softmax scores), a segmentor (those of each pixel), the backbone and neck '
        'of a detector (its maps) or a video recogniser (its softmax scores) to a file of ONNX, OpenVINO or '
        'torch.export, and check it there against PyTorch. Inputs are normalised images (batch, 3, height, width) or '
        'clips (batch, 3, frames, height, width); how an image is prepared is written into the file, and '
        '`mmstvit run-exported` does it.',
        epilog='example: mmstvit export stvit-s_8xb128_in1k s.pth s.onnx --dynamic-batch',
    )
    add_run_arguments(parser)
    parser.add_argument(
        'out', metavar='OUT', help='the file to write: *.onnx, *.xml of OpenVINO, *.pt2 of torch.export'
    )
    parser.add_argument('--format', choices=FORMATS, help="default by OUT's ending")
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='N',
        help="height and width, of clips frames, height and width; by default those of the config's test pipeline",
    )
    parser.add_argument('--dynamic-batch', action='store_true', help='leave the batch size open; else it is 1')
    parser.add_argument(
        '--dynamic-size',
        action='store_true',
        help='leave height and width open; for networks without windows, whose masks are made for one size',
    )
    _add_number_arguments(parser)
    add_shared(parser, '--reduce', '--trust-checkpoint')
    return parser.parse_intermixed_args(argv)


def _add_number_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the types of numbers."""
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        default='float32',
        help='of OpenVINO: float16 stores weights in half the space and computes in float32, bfloat16 stores them so '
        'too and computes in bfloat16 where the processor can',
    )
    parser.add_argument(
        '--int8',
        metavar='FOLDER|CONFIG',
        help="quantise a classifier to 8-bit integers, calibrated on half of these images (or of a config's test data "
        'set) and compared with float32 on the other half; of folders named as the classes with the accuracy',
    )
    parser.add_argument('--images', type=int, metavar='N', help=f'of --int8, at the most; default {IMAGES}')
    parser.add_argument(
        '--min-agreement',
        type=float,
        metavar='SHARE',
        help='of --int8: the file is kept if at least this share of the held-out images has the same class as in '
        f'float32; default {MIN_AGREEMENT}',
    )


def calibration_of(args: argparse.Namespace) -> Calibration | None:
    """Return how the network is to be quantised; raise ``UsageError`` for an option that has no effect."""
    options = {name: getattr(args, name) for name in ('images', 'min_agreement') if getattr(args, name) is not None}
    if args.int8 is None and options:
        raise UsageError(f'--{next(iter(options)).replace("_", "-")} has no effect without --int8')
    return args.int8 and Calibration(args.int8, **options)


def said(exported: Exported, runtime: str) -> list[str]:
    """Return what is printed of an export, line by line."""
    size = sum(file.stat().st_size for file in exported.files) / 1e6
    lines = [
        f'written: {", ".join(map(str, exported.files[::-1]))} ({size:.1f} MB), outputs {", ".join(exported.outputs)}',
        f'checked on {exported.checked} inputs: {runtime} differs from PyTorch by {exported.difference:.1e} of the '
        f'largest output{", before int8" if exported.int8 else ""}',
    ]
    if exported.int8:
        int8 = exported.int8
        top1 = '' if int8.top1 is None else f'; top-1 {int8.top1:.1%}, in float32 {int8.top1_float32:.1%}'
        lines.append(
            f'int8, calibrated on {int8.calibrated} images: {int8.agreement:.1%} of {int8.held_out} held-out images '
            f'have the class of float32{top1}'
        )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        out = Path(args.out).expanduser()
        form, calibration = format_of(out, args.format), calibration_of(args)
        form.require(calibration is not None)
        find_arguments(args)
        form.check_files(out)
        refuse_overwriting(form.files(out), [args.checkpoint], 'choose another name')
        model = get_model(read_config(args.config), args.checkpoint, trust_checkpoint=args.trust_checkpoint)
        model = reduced(model, args.reduce)
        exported = export_model(model, out, args.shape, args.dynamic_batch, args.dynamic_size, args.dtype, calibration)
        print(*said(exported, form.runtime), sep='\n')
