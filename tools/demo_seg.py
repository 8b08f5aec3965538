"""Label each pixel of scenes of handwritten digits, from nothing to a picture: ``python tools/demo_seg.py``.

Makes scenes of scikit-learn's digits with label maps, trains configs/digits/upernet_stvit-r_digits.py on them, tests
the checkpoint on held-out scenes, and leaves a picture of predicted label maps under the work dir. Training that was
interrupted goes on where it stopped; what is finished is not repeated.
"""

from demo import draw_into_files, draw_scenes, say, train_and_test, work_dir_of

CONFIG = 'configs/digits/upernet_stvit-r_digits.py'
DATA = 'data/digits_scenes'  # where the config looks, below the working folder


def main() -> None:
    work_dir = work_dir_of(__doc__, CONFIG)
    draw_into_files()
    from mmstvit.datasets.scenes import make_scenes

    say(f'making 1,000 scenes of handwritten digits in {DATA}')
    make_scenes(DATA)
    say(f'training {CONFIG} on 800 of them: about four minutes on two cores')
    checkpoint, metrics = train_and_test(CONFIG, work_dir, 'scenes')
    say('inferring 12 held-out scenes')
    say(f'label maps:      {draw_scenes(CONFIG, checkpoint, DATA, work_dir / "label_maps.png")}')
    say(f'checkpoint:      {checkpoint}')
    say(f'held-out mIoU: {metrics["mIoU"]:.1f}')


if __name__ == '__main__':
    main()
