"""Label each pixel of scenes of handwritten digits, from nothing to a picture: ``python tools/demo_seg.py``.

Makes scenes of scikit-learn's digits with label maps, trains configs/digits/upernet_stvit-r_digits.py on them, tests
the checkpoint on held-out scenes, and leaves a picture of predicted label maps under the work dir. Training that was
interrupted goes on where it stopped; what is finished is not repeated.
"""

from demo import demo_of_scenes, say

CONFIG = 'configs/digits/upernet_stvit-r_digits.py'


def main() -> None:
    metrics = demo_of_scenes(__doc__, CONFIG, 'four', 'label maps', 'scenes')
    say(f'held-out mIoU: {metrics["mIoU"]:.1f}')


if __name__ == '__main__':
    main()
