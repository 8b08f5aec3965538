"""Multiply-adds, parameters and tokens of networks: ``tools/analysis_tools/get_flops.py``."""

import argparse
from collections.abc import Sequence

from ..console import console, print_table
from ..errors import one_line_errors
from ..io.files import write_json
from ..measure.figures import comparison, figures, part_table
from ..measure.networks import load_network, quieten
from .arguments import add_network_arguments, output_file


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Count the multiply-adds, FLOPs (two for each multiply-add) and parameters of networks, in all, of '
        'the backbone alone, and of each part, with the tokens that enter each transformer layer. Counted are matrix '
        'products, convolutions and attention (fused or not); not norms, activations, softmax, pooling, additions and '
        "resizing, nor mmcv's deformable convolutions, which are named where there are any. The figure is of one image "
        'or one clip (of the test views of a video each costs as much). Of a detector it holds backbone, neck and '
        'heads without decoding and non-maximum suppression: the heads of the second stage for as many proposals as '
        'the config lets through (model.test_cfg.rpn.max_per_img), the mask head for as many as mmdet runs it on. Of a '
        'segmentor it holds backbone, neck and decode head, without the auxiliary heads of its training.',
        epilog='example: mmstvit flops stvit-s_8xb128_in1k timm:deit_small_patch16_224',
    )
    add_network_arguments(parser, 'One table each, then a comparison with the first.')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        output_file(args.json, '--json', ('.json',))
        quieten()
        screen, rows = console(), []
        for network in [load_network(spec) for spec in args.networks]:
            row = figures(network, args.shape)
            rows.append(row)
            print_table(screen, part_table(row), ('FLOPs', 'input'))
            if row.whole.not_counted:
                screen.print(f'Not counted: {", ".join(row.whole.not_counted)}')
        if len(rows) > 1:
            print_table(screen, comparison(rows), ('FLOPs', 'input', 'multiply-adds of the backbone'))
        if args.json:
            write_json(args.json, [row.as_dict() for row in rows])
