"""Train, test and use a model on real images in one go: ``python tools/demo.py``.

Trains configs/digits/stvit-tiny_digits.py on scikit-learn's handwritten digits, tests the checkpoint on the held-out
quarter, infers single image files, and leaves two pictures under the work dir. Training that was interrupted goes on
where it stopped; finished training is not repeated.
"""

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

CONFIG = 'configs/digits/stvit-tiny_digits.py'
ROOT = Path(__file__).resolve().parent.parent
SHOWN, ENLARGED = 6, 4  # scenes, and how much, so that labels can be read
SCENES = 'data/digits_scenes'  # where the configs of scenes look, below the working folder


def say(text: str) -> None:
    print(text, flush=True)


def work_dir_of(description: str, config: str) -> Path:
    """The work dir that a demo was given, or the one of its config; it is made."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs') / Path(config).stem)
    work_dir = parser.parse_args().work_dir
    work_dir.mkdir(parents=True, exist_ok=True)
    return work_dir


def draw_into_files() -> None:
    """Let pictures go into files, with or without a screen, and nothing be said that matters to no picture."""
    import matplotlib

    from mmstvit.engine.terminal import hide_harmless_warnings

    hide_harmless_warnings()
    matplotlib.use('agg')


def run(command: list[str], log: Path, shown: str = '(?!)') -> None:
    """Run a command with its output in ``log``; lines that begin with the pattern ``shown`` are shown too.

    Raises:
        SystemExit: the command failed; the end of its output is printed.
    """
    with log.open('w') as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in process.stdout:
            file.write(line)
            if re.match(shown, line):
                say(f'  {line.rstrip()}')
    if process.wait():
        say(''.join(log.read_text().splitlines(keepends=True)[-5:]))
        sys.exit(f'error: {" ".join(command)} failed; its output is in {log}')


def train_and_test(config: str, work_dir: Path, held_out: str = 'images') -> tuple[Path, dict[str, float]]:
    """Train (or go on), test the last checkpoint; returns it and its metrics on held-out data.

    Args:
        config: path below the repository.
        work_dir: for logs and checkpoints.
        held_out: what the checkpoint is tested on.
    """
    tools, path = ROOT / 'tools', str(ROOT / config)
    last = work_dir / 'last_checkpoint'
    if last.is_file():
        say(f'  going on from {last.read_text()} (delete {work_dir} to begin anew)')
    command = [sys.executable, str(tools / 'train.py'), path, '--work-dir', str(work_dir), '--resume', '--quiet']
    run(command, work_dir / 'train.txt', 'epoch ')
    checkpoint = Path(last.read_text())
    metrics = work_dir / 'metrics.json'
    say(f'testing {checkpoint} on the held-out {held_out}')
    command = [sys.executable, str(tools / 'test.py'), path, str(checkpoint), '--out', str(metrics)]
    run([*command, '--work-dir', str(work_dir / 'test')], work_dir / 'test.txt')
    return checkpoint, json.loads(metrics.read_text())


def plot_curves(work_dir: Path) -> Path:
    """Loss and held-out accuracy over the epochs."""
    import matplotlib.pyplot as plt
    from mmpretrain.utils import load_json_log

    # Interrupted training has left a log for each run; together they are the whole course.
    logs = [load_json_log(str(path)) for path in sorted(work_dir.glob('*/vis_data/scalars.json'))]
    train = [entry for log in logs for entry in log['train']]
    val = [entry for log in logs for entry in log['val']]
    steps = max(entry['step'] / entry['epoch'] for entry in train)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout='constrained')
    left.plot([entry['step'] / steps for entry in train], [entry['loss'] for entry in train], linewidth=1)
    left.set(title='training loss (label smoothing 0.1)', xlabel='epoch', ylim=(0, None))
    right.plot([entry['step'] for entry in val], [entry['accuracy/top1'] for entry in val], marker='.')
    right.set(title='held-out top-1 in %', xlabel='epoch', ylim=(None, 101))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    path = work_dir / 'curves.png'
    figure.savefig(path, dpi=100)
    return path


def draw_predictions(work_dir: Path, checkpoint: Path) -> Path:
    """Write held-out scans as image files, infer each, and draw them with their labels."""
    import matplotlib.pyplot as plt
    import mmcv

    from mmstvit import inference_model
    from mmstvit.datasets import digit_scans

    images, labels = digit_scans('val')
    rows, columns, count = 4, 8, 32
    paths = [str(work_dir / 'samples' / f'{i:02d}.png') for i in range(count)]
    for image, path in zip(images, paths):
        mmcv.imwrite(image, path)
    with contextlib.redirect_stdout(io.StringIO()):
        results = inference_model(str(ROOT / CONFIG), str(checkpoint), paths, batch_size=count)
    figure, axes = plt.subplots(rows, columns, figsize=(1.25 * columns, 1.5 * rows), layout='constrained')
    for axis, image, label, result in zip(axes.flat, images, labels, results):
        right = result['pred_label'] == label
        axis.imshow(image, cmap='gray', interpolation='bicubic')
        axis.set_title(
            f'{result["pred_class"]}  {result["pred_score"]:.0%}' + ('' if right else f'\nis {label}'),
            color='green' if right else 'red',
            fontsize=9,
        )
        axis.axis('off')
    path = work_dir / 'predictions.png'
    figure.savefig(path, dpi=100)
    return path


def draw_scenes(config: str, checkpoint: Path, data: str, path: Path) -> Path:
    """Infer held-out scenes of digits, and draw what is found, objects or label maps, on one sheet.

    Args:
        config: path below the repository.
        checkpoint: its weights.
        data: the folder of the scenes.
        path: where the sheet goes; it is returned.
    """
    import cv2
    import numpy as np

    from mmstvit import get_model, inference_model
    from mmstvit.apis.models import scope_of
    from mmstvit.apis.results import draw_prediction

    scenes = [cv2.imread(str(file)) for file in sorted(Path(data, 'val').glob('*.png'))[:SHOWN]]
    # The network sees them at their own size: its pipeline makes them small again.
    scenes = [cv2.resize(s, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC) for s in scenes]
    with contextlib.redirect_stdout(io.StringIO()):
        model = get_model(str(ROOT / config), str(checkpoint))
        results = inference_model(model, scenes)
    scope = scope_of(model)
    drawn = [draw_prediction(r, {}, scope, model, 0.5, s[..., ::-1])[..., ::-1] for s, r in zip(scenes, results)]
    sheet = np.vstack([np.hstack(drawn[i : i + 3]) for i in range(0, SHOWN, 3)])
    cv2.imwrite(str(path), sheet)
    return path


def demo_of_scenes(
    description: str, config: str, minutes: str, shown: str, held_out: str = 'images'
) -> dict[str, float]:
    """Make scenes of digits, train on them, draw what is found in held-out ones; returns the metrics of the test.

    Args:
        description: of the command.
        config: path below the repository.
        minutes: that the training takes on two cores, in words.
        shown: what the picture has, which names its file too.
        held_out: what the test is made on, in words.
    """
    work_dir = work_dir_of(description, config)
    draw_into_files()
    from mmstvit.datasets.scenes import make_scenes

    say(f'making 1,000 scenes of handwritten digits in {SCENES}')
    make_scenes(SCENES)
    say(f'training {config} on 800 of them: about {minutes} minutes on two cores')
    checkpoint, metrics = train_and_test(config, work_dir, held_out)
    say(f'inferring {SHOWN} held-out scenes')
    picture = draw_scenes(config, checkpoint, SCENES, work_dir / f'{shown.replace(" ", "_")}.png')
    say(f'{shown + ":":16} {picture}')
    say(f'checkpoint:      {checkpoint}')
    return metrics


def main() -> None:
    work_dir = work_dir_of(__doc__, CONFIG)
    say(f'training {CONFIG} on 1,347 handwritten digits: about two minutes on two cores')
    checkpoint, metrics = train_and_test(CONFIG, work_dir)
    draw_into_files()
    say('inferring 32 single image files')
    say(f'training curves: {plot_curves(work_dir)}')
    say(f'predictions:     {draw_predictions(work_dir, checkpoint)}')
    say(f'checkpoint:      {checkpoint}')
    say(f'held-out top-1: {metrics["accuracy/top1"]:.1f} %')


if __name__ == '__main__':
    main()
