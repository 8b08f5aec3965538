"""Hooks that draw what is predicted in a test, for ``tools/test.py --show-dir``.

mmaction2's own hook passes its visualizer an argument that it does not take, and its visualizer looks for labels under
names that its data samples no longer have (1.2.0, its last release). That of mmseg has no folder, and leaves out no
sample of a test: it hands each to the backends of the visualizer, which put the pictures among the logs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.image import imread
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS
from .clips import strip


class DrawingHook(Hook):
    """Draws tested samples.

    Args:
        folder: where the pictures go, one PNG a sample.
        interval: every n-th sample is drawn.
    """

    def __init__(self, folder: str, interval: int = 1) -> None:
        self.folder, self.interval, self._count = Path(folder), interval, 0

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence) -> None:
        """Draw the samples of a batch."""
        for i, sample in enumerate(outputs if is_main_process() else ()):
            if self._count % self.interval == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._draw(runner, data_batch['inputs'][i], sample)
            self._count += 1

    def _draw(self, runner: Runner, inputs: Any, sample: Any) -> None:
        raise NotImplementedError


@HOOKS.register_module()
class MapDrawingHook(DrawingHook):
    """Draws tested images, the true label map on the left and the predicted one on the right, by mmseg's visualizer.

    The pictures are named like the images. See :class:`DrawingHook` for the arguments.
    """

    def _draw(self, runner: Runner, inputs: Any, sample: Any) -> None:
        path = Path(sample.img_path)
        image = imread(str(path), channel_order='rgb')
        file = str(self.folder / f'{path.stem}.png')
        runner.visualizer.add_datasample(path.name, image, sample, out_file=file)


@HOOKS.register_module()
class ClipDrawingHook(DrawingHook):
    """Draws tested clips: some of the frames in a row, above them the predicted and the true class.

    The pictures are named by the numbers of the clips. See :class:`DrawingHook` for the arguments.
    """

    def _draw(self, runner: Runner, inputs: Any, sample: Any) -> None:
        # (clips, 3, T, H, W), or (T, 3, H, W) of 2D recognisers.
        frames = inputs[0].permute(1, 2, 3, 0) if inputs.dim() == 5 else inputs.permute(0, 2, 3, 1)
        caption = _caption(sample, (runner.visualizer.dataset_meta or {}).get('classes'))
        picture = strip(frames.cpu().numpy().astype(np.uint8), caption)
        cv2.imwrite(str(self.folder / f'{self._count}.png'), picture)


def _caption(sample: Any, classes: Sequence[str] | None) -> str:
    def name(label: int) -> str:
        return classes[label] if classes else f'class {label}'

    score = sample.pred_score
    predicted, true = int(score.argmax()), ', '.join(name(int(label)) for label in sample.gt_label.flatten())
    return f'{name(predicted)} {float(score[predicted]):.2f} (true: {true})'
