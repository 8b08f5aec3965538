"""Make a data set for detection and instance segmentation, in COCO's format, from scikit-learn's handwritten digits.

    python tools/dataset_converters/digits_scenes.py data/digits_scenes

It may be interrupted and run again; a set that is there is left as it is.
"""

from mmstvit.cli.made_sets import make_set, parse_args
from mmstvit.compat.requires import require
from mmstvit.errors import one_line_errors


def main() -> None:
    with one_line_errors():
        args = parse_args(__doc__, 'scenes', train=800, val=200, size=128)
        require('sklearn', 'cls', 'the scans of the digits')
        require('pycocotools', 'det', 'masks of COCO')
        from mmstvit.datasets.scenes import make_scenes

        make_set(make_scenes, args, 'scenes')


if __name__ == '__main__':
    main()
