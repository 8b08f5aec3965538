"""Multiply-adds, parameters and tokens of networks: ``tools/analysis_tools/get_flops.py``."""

import argparse
from collections.abc import Sequence

import mmengine

from ..errors import one_line_errors
from ..measure.figures import comparison, console, figures, part_table
from ..measure.networks import SPECS, load_network, quieten
from .common import output_file


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Count the multiply-adds, FLOPs (two for each multiply-add) and parameters of networks, in all, of '
        'the backbone alone, and of each part, with the tokens that enter each transformer layer. Counted are matrix '
        'products, convolutions and attention (fused or not); not norms, activations, softmax, pooling, additions and '
        "resizing, nor mmcv's deformable convolutions, which are named where there are any. The figure is of one image "
        'or one clip (of the test views of a video each costs as much). Of a detector it holds backbone, neck and '
        'heads without decoding and non-maximum suppression: the heads of the second stage for as many proposals as '
        'the config lets through (model.test_cfg.rpn.max_per_img), the mask head for as many as mmdet runs it on.',
        epilog='example: mmstvit flops stvit-s_8xb128_in1k timm:deit_small_patch16_224',
    )
    parser.add_argument(
        'networks', nargs='+', metavar='CONFIG', help=f'one table each, then a comparison with the first. {SPECS}'
    )
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help="H W of images, T H W or C T H W of clips; default the config's test size",
    )
    parser.add_argument('--json', metavar='FILE', help='write the figures there')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        output_file(args.json, '--json', ('.json',))
        quieten()
        screen, all_found = console(), []
        networks = [load_network(spec) for spec in args.networks]
        for network in networks:
            found = figures(network, args.shape)
            all_found.append(found)
            screen.print(part_table(found))
            if found.whole.not_counted:
                screen.print(f'Not counted: {", ".join(found.whole.not_counted)}')
        if len(all_found) > 1:
            screen.print(comparison(all_found))
        if args.json:
            mmengine.dump([found.as_dict() for found in all_found], args.json, indent=2)
