"""The commands that draw data sets of handwritten digits: ``tools/dataset_converters/digits_*.py``."""

import argparse
import importlib

from ..errors import as_usage_error, one_line_errors


def make_set(description: str, kind: str, train: int, val: int, size: int) -> None:
    """Draw what is missing of a set, as the arguments of the command say, and print how much that was.

    Args:
        description: the text of its help.
        kind: ``'scenes'`` or ``'clips'``; the set goes to ``data/digits_KIND`` by default.
        train: default number of files for training.
        val: the same for validation.
        size: default height and width in pixels.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out_dir', nargs='?', default=f'data/digits_{kind}', help='default: %(default)s')
    parser.add_argument('--train', type=int, default=train, help=f'number of {kind} for training, default %(default)s')
    parser.add_argument('--val', type=int, default=val, help=f'number of {kind} for validation, default %(default)s')
    parser.add_argument('--size', type=int, default=size, help='height and width in pixels, default %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='replace a set that is there')
    with one_line_errors():
        args = parser.parse_args()
        make = getattr(importlib.import_module(f'mmstvit.datasets.{kind}'), f'make_{kind}')
        with as_usage_error(ValueError, OSError):
            number = make(**vars(args))
        counts = f'{args.train} {kind} for training and {args.val} for validation'
        print(f'{args.out_dir}: {counts}, {f"{number} drawn" if number else "all there already"}')
