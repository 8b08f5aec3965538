"""Make a data set for action recognition, mp4 files that mmaction2 reads, from scikit-learn's handwritten digits.

    python tools/dataset_converters/digits_clips.py data/digits_clips

It may be interrupted and run again; a set that is there is left as it is.
"""

import argparse

from mmstvit.cli.errors import UsageError, one_line, one_line_errors
from mmstvit.compat.requires import require


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out_dir', nargs='?', default='data/digits_clips', help='default: %(default)s')
    parser.add_argument('--train', type=int, default=1600, help='number of clips for training, default %(default)s')
    parser.add_argument('--val', type=int, default=400, help='number of clips for validation, default %(default)s')
    parser.add_argument('--size', type=int, default=64, help='height and width in pixels, default %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='replace a set that is there')
    return parser.parse_args()


def main() -> None:
    with one_line_errors():
        args = parse_args()
        require('sklearn', 'cls', 'the scans of the digits')
        from mmstvit.datasets.clips import make_clips

        try:
            drawn = make_clips(**vars(args))
        except (ValueError, OSError) as error:
            raise UsageError(one_line(error)) from error
        clips = f'{args.train} clips for training and {args.val} for validation'
        print(f'{args.out_dir}: {clips}, {f"{drawn} drawn" if drawn else "all there already"}')


if __name__ == '__main__':
    main()
