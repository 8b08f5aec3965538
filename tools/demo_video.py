"""Recognise how a digit moves, from nothing to a picture: ``python tools/demo_video.py``.

Makes mp4 clips of scikit-learn's moving digits, trains configs/digits/stvit-swin3d_digits.py on them, tests the
checkpoint on held-out clips, and leaves a picture of frames with predictions under the work dir. Training that was
interrupted goes on where it stopped; what is finished is not repeated.
"""

import contextlib
import io
from pathlib import Path

from demo import ROOT, draw_into_files, say, train_and_test, work_dir_of

CONFIG = 'configs/digits/stvit-swin3d_digits.py'
DATA = 'data/digits_clips'  # where the config looks, below the working folder


def draw_predictions(work_dir: Path, checkpoint: Path) -> Path:
    """Infer one held-out clip of each class, and draw their frames with what was predicted."""
    import matplotlib.pyplot as plt
    import mmcv

    from mmstvit import get_model, inference_model
    from mmstvit.datasets.clips import CLASSES

    clips = dict(line.split() for line in reversed(Path(DATA, 'val.txt').read_text().splitlines()))
    first = {int(label): str(Path(DATA, name)) for name, label in clips.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        model = get_model(str(ROOT / CONFIG), str(checkpoint))
        results = inference_model(model, [first[label] for label in range(len(CLASSES))])
    columns = len(mmcv.VideoReader(first[0]))
    figure, axes = plt.subplots(len(CLASSES), columns, figsize=(1.1 * columns + 2.4, 1.1 * len(CLASSES)))
    for row, (label, result) in enumerate(zip(range(len(CLASSES)), results)):
        for axis, frame in zip(axes[row], mmcv.VideoReader(first[label])):
            axis.imshow(frame[..., ::-1])
            axis.axis('off')
        predicted = int(result.pred_score.argmax())
        right = predicted == label
        text = f'{CLASSES[predicted]}  {float(result.pred_score[predicted]):.0%}'
        axes[row, -1].text(
            1.1,
            0.5,
            text if right else f'{text}\nis {CLASSES[label]}',
            color='green' if right else 'red',
            verticalalignment='center',
            transform=axes[row, -1].transAxes,
        )
    figure.subplots_adjust(
        left=0.01, right=1 - 2.2 / figure.get_figwidth(), bottom=0.01, top=0.99, wspace=0.05, hspace=0.05
    )
    path = work_dir / 'predictions.png'
    figure.savefig(path, dpi=100)
    return path


def main() -> None:
    work_dir = work_dir_of(__doc__, CONFIG)
    from mmstvit.datasets.clips import make_clips

    say(f'making 2,000 clips of moving digits in {DATA}')
    make_clips(DATA)
    say(f'training {CONFIG} on 1,600 of them: about four minutes on two cores')
    checkpoint, metrics = train_and_test(CONFIG, work_dir, 'clips')
    draw_into_files()
    say('inferring 8 held-out clips')
    say(f'predictions:     {draw_predictions(work_dir, checkpoint)}')
    say(f'checkpoint:      {checkpoint}')
    say(f'held-out top-1: {100 * metrics["acc/top1"]:.1f} %')


if __name__ == '__main__':
    main()
