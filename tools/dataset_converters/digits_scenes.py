"""Make a data set for detection and instance segmentation, in COCO's format, from scikit-learn's handwritten digits.

    python tools/dataset_converters/digits_scenes.py data/digits_scenes

It may be interrupted and run again; a set that is there is left as it is.
"""

import argparse

from mmstvit.cli.errors import UsageError, one_line, one_line_errors
from mmstvit.compat.requires import require


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out_dir', nargs='?', default='data/digits_scenes', help='default: %(default)s')
    parser.add_argument('--train', type=int, default=800, help='number of scenes for training, default %(default)s')
    parser.add_argument('--val', type=int, default=200, help='number of scenes for validation, default %(default)s')
    parser.add_argument('--size', type=int, default=128, help='height and width in pixels, default %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='replace a set that is there')
    return parser.parse_args()


def main() -> None:
    with one_line_errors():
        args = parse_args()
        require('sklearn', 'cls', 'the scans of the digits')
        require('pycocotools', 'det', 'masks of COCO')
        from mmstvit.datasets.scenes import make_scenes

        try:
            drawn = make_scenes(**vars(args))
        except (ValueError, OSError) as error:
            raise UsageError(one_line(error)) from error
        scenes = f'{args.train} scenes for training and {args.val} for validation'
        print(f'{args.out_dir}: {scenes}, {f"{drawn} drawn" if drawn else "all there already"}')


if __name__ == '__main__':
    main()
