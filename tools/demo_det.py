"""Detect handwritten digits with masks, from nothing to a picture: ``python tools/demo_det.py``.

Makes scenes of scikit-learn's digits in COCO's format, trains configs/digits/mask-rcnn_stvit-r_digits.py on them, tests
the checkpoint on held-out scenes, and leaves a picture of detected digits under the work dir. Training that was
interrupted goes on where it stopped; what is finished is not repeated.
"""

from demo import demo_of_scenes, say

CONFIG = 'configs/digits/mask-rcnn_stvit-r_digits.py'


def main() -> None:
    metrics = demo_of_scenes(__doc__, CONFIG, 'six', 'detections')
    say(f'held-out box AP: {metrics["coco/bbox_mAP"]:.3f}  mask AP: {metrics["coco/segm_mAP"]:.3f}')


if __name__ == '__main__':
    main()
