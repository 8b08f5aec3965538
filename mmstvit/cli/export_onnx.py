"""Export a model of any of the three toolboxes to ONNX: ``tools/deployment/export_onnx.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.registry import DefaultScope
from torch import Tensor

from ..apis.weights import check_checkpoint, classes_of, load_model
from ..compat.requires import require
from ..deploy.export import check_shapes, check_size, metadata_of, network_of
from ..errors import UsageError, one_line_errors
from ..io.files import unfinished
from ..measure.complexity import count
from ..measure.networks import default_size
from .common import add_trust_argument, load_config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Write a classifier (its softmax scores), the backbone and neck of a detector (its maps) or a '
        'video recogniser (its softmax scores) to an ONNX file, and check it with ONNX Runtime against PyTorch. Inputs '
        'are normalised images (batch, 3, height, width) or clips (batch, 3, frames, height, width); how an image is '
        'prepared is written into the file, and tools/deployment/run_onnx.py does it.',
        epilog='example: mmstvit export stvit-s_8xb128_in1k s.pth s.onnx --dynamic-batch',
    )
    parser.add_argument('config', help='the config file')
    parser.add_argument('checkpoint', help='a checkpoint file or its URL')
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
    add_trust_argument(parser)
    return parser.parse_args(argv)


def export(args: argparse.Namespace) -> None:
    """Write the file that the arguments ask for.

    Raises:
        UsageError: an argument is wrong, or the exported network does not do what the model does.
    """
    require('onnxscript', 'deploy', 'the export to ONNX')
    require('onnxruntime', 'deploy', 'the check of an exported file')
    from ..deploy.graph import BATCH, SIZES, largest_difference, trace, write

    out = Path(args.out).expanduser()
    if out.suffix != '.onnx':
        raise UsageError(f'{args.out}: name it *.onnx')
    check_checkpoint(args.checkpoint)
    cfg = load_config(
        argparse.Namespace(config=args.config, cfg_options={}, launcher='none', work_dir=None, local_rank=0)
    )
    scope = cfg.default_scope
    model = load_model(cfg, args.checkpoint, trust=args.trust_checkpoint)
    network = network_of(model, scope).eval()
    with DefaultScope.overwrite_default_scope(scope):
        shape = tuple(args.shape or default_size(cfg))
        if not shape:
            raise UsageError("the config's test pipeline does not tell the input size: give it with --shape")
        check_size(model, shape, bool(args.shape), args.dynamic_size, 3 if scope == 'mmaction' else 2)
        fixed = None if args.dynamic_size else shape
        metadata = metadata_of(cfg, model, classes_of(model), fixed, bool(args.shape))
        cost = count(network, torch.zeros(1, 3, *shape))
        metadata |= dict(input_size=shape, multiply_adds=cost.multiply_adds, parameters=cost.parameters)

    open_axes = {0: BATCH} if args.dynamic_batch else {}
    if args.dynamic_size:
        open_axes.update(zip((2, 3), SIZES))
    # Where a size is open the example is one with borders to pad: what is done to them is recorded.
    example = torch.zeros(2 if args.dynamic_batch else 1, 3, *(n + 5 if args.dynamic_size else n for n in shape))
    out.parent.mkdir(parents=True, exist_ok=True)
    # A file of that name is always a whole and a right one.
    with unfinished(out) as temporary:
        with torch.no_grad():
            found = network(example)
            names = ['scores'] if isinstance(found, Tensor) else [f'level_{i}' for i in range(len(found))]
            write(trace(network, example, open_axes), names, open_axes, metadata, temporary)
        shapes = check_shapes(shape, args.dynamic_batch, args.dynamic_size)
        difference = largest_difference(network, temporary, shapes)
        temporary.replace(out)
    print(f'written: {out} ({out.stat().st_size / 1e6:.1f} MB), outputs {", ".join(names)}')
    print(
        f'checked on {len(shapes)} inputs: ONNX Runtime differs from PyTorch by {difference:.1e} of the largest output'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        export(parse_args(argv))
