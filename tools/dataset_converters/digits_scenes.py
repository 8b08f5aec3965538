"""Make a data set for detection and instance segmentation, in COCO's format, from scikit-learn's handwritten digits.

    python tools/dataset_converters/digits_scenes.py data/digits_scenes

It may be interrupted and run again; a set that is there is left as it is.
"""

from mmstvit.cli.made_sets import make_set

if __name__ == '__main__':
    make_set(__doc__, 'scenes', train=800, val=200, size=128)
