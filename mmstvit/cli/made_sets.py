"""The commands that draw data sets of handwritten digits: ``tools/dataset_converters/digits_*.py``."""

import argparse
from collections.abc import Callable

from ..errors import UsageError, one_line


def parse_args(description: str, kind: str, train: int, val: int, size: int) -> argparse.Namespace:
    """Parse the arguments of such a command.

    Args:
        description: the text of its help.
        kind: what the files hold, in the plural; the set goes to ``data/digits_KIND`` by default.
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
    return parser.parse_args()


def make_set(make: Callable[..., int], args: argparse.Namespace, kind: str) -> None:
    """Draw what is missing of a set, and print how much that was.

    Args:
        make: ``make_scenes`` or ``make_clips``.
        args: of :func:`parse_args`.
        kind: as there.

    Raises:
        UsageError: a setting is out of range, or the folder cannot be written.
    """
    try:
        number = make(**vars(args))
    except (ValueError, OSError) as error:
        raise UsageError(one_line(error)) from error
    counts = f'{args.train} {kind} for training and {args.val} for validation'
    print(f'{args.out_dir}: {counts}, {f"{number} drawn" if number else "all there already"}')
