"""Make a data set for action recognition, mp4 files that mmaction2 reads, from scikit-learn's handwritten digits.

    python tools/dataset_converters/digits_clips.py data/digits_clips

It may be interrupted and run again; a set that is there is left as it is.
"""

from mmstvit.cli.made_sets import make_set

if __name__ == '__main__':
    make_set(__doc__, 'clips', train=1600, val=400, size=64)
