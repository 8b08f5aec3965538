"""Export a model of any of the toolboxes to ONNX: ``tools/deployment/export_onnx.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..apis.models import get_model
from ..deploy.export import export_onnx, require_packages
from ..errors import UsageError, one_line_errors
from .arguments import add_reduce_argument, add_run_arguments, add_trust_argument, find_arguments, reduced
from .common import read_config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Write a classifier (its softmax scores), a segmentor (those of each pixel), the backbone and neck '
        'of a detector (its maps) or a video recogniser (its softmax scores) to an ONNX file, and check it with ONNX '
        'Runtime against PyTorch. Inputs are normalised images (batch, 3, height, width) or clips (batch, 3, frames, '
        'height, width); how an image is prepared is written into the file, and tools/deployment/run_onnx.py does it.',
        epilog='example: mmstvit export stvit-s_8xb128_in1k s.pth s.onnx --dynamic-batch',
    )
    add_run_arguments(parser)
    parser.add_argument('out', metavar='OUT.onnx', help='the file to write')
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
    add_reduce_argument(parser)
    add_trust_argument(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        out = Path(args.out).expanduser()
        if out.suffix != '.onnx':
            raise UsageError(f'{args.out}: name it *.onnx')
        require_packages()
        find_arguments(args)
        model = get_model(read_config(args.config), args.checkpoint, trust_checkpoint=args.trust_checkpoint)
        model = reduced(model, args.reduce)
        exported = export_onnx(model, out, args.shape, args.dynamic_batch, args.dynamic_size)
        print(f'written: {out} ({out.stat().st_size / 1e6:.1f} MB), outputs {", ".join(exported.outputs)}')
        print(
            f'checked on {exported.checked} inputs: ONNX Runtime differs from PyTorch by {exported.difference:.1e} of '
            'the largest output'
        )
