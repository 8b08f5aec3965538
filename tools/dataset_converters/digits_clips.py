"""Make a data set for action recognition, mp4 files that mmaction2 reads, from scikit-learn's handwritten digits.

    python tools/dataset_converters/digits_clips.py data/digits_clips

It may be interrupted and run again; a set that is there is left as it is.
"""

from mmstvit.cli.made_sets import make_set, parse_args
from mmstvit.compat.requires import require
from mmstvit.errors import one_line_errors


def main() -> None:
    with one_line_errors():
        args = parse_args(__doc__, 'clips', train=1600, val=400, size=64)
        require('sklearn', 'cls', 'the scans of the digits')
        from mmstvit.datasets.clips import make_clips

        make_set(make_clips, args, 'clips')


if __name__ == '__main__':
    main()
