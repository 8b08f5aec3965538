"""Hooks that draw what is predicted in a test, for ``tools/test.py --show-dir``.

The hooks of mmpretrain and mmdet name pictures by the names of images without their folders: of two with one name one
picture is left, and mmdet writes over the images if the folder is theirs. mmaction2's own hook passes its visualizer an
argument that it does not take, and its visualizer looks for labels under names that its data samples no longer have
(1.2.0, its last release). That of mmseg has no folder, and leaves out no sample of a test: it hands each to the
backends of the visualizer, which put the pictures among the logs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.image import imread
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..io.outputs import places_below, refuse_overwriting
from ..registry import HOOKS
from .clips import strip


class DrawingHook(Hook):
    """Draws tested samples.

    Args:
        folder: where the pictures go, one PNG a sample: named by its number or, where a sample is an image file, by the
            path of that below the folder that all have in common.
        interval: every n-th sample is drawn.
        options: of the visualizer's method that draws.

    Raises:
        UsageError: before a test of images, over one of which a picture would be written.
    """

    def __init__(self, folder: str, interval: int = 1, **options: Any) -> None:
        self.folder, self.interval, self.options = Path(folder), interval, options
        self._count, self._places = 0, dict[str, Path]()

    def before_test_epoch(self, runner: Runner) -> None:
        """Name the pictures of image files."""
        dataset = runner.test_dataloader.dataset
        infos = (dataset.get_data_info(i) for i in range(len(dataset))) if hasattr(dataset, 'get_data_info') else ()
        files = [path for info in infos if isinstance(path := info.get('img_path'), str)]
        self._places = dict(zip(files, places_below(self.folder, files), strict=True)) if files else {}
        refuse_overwriting((f'{place}.png' for place in self._places.values()), files, 'draw into another folder')

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence) -> None:
        """Draw the samples of a batch; of several processes each draws its own, which come in turn."""
        for i, sample in enumerate(outputs):
            number = self._count * get_world_size() + get_rank()
            self._count += 1
            if number % self.interval == 0:
                place = self._places.get(getattr(sample, 'img_path', ''), self.folder / str(number))
                place.parent.mkdir(parents=True, exist_ok=True)
                self._draw(runner, data_batch['inputs'][i], sample, f'{place}.png')

    def _draw(self, runner: Runner, inputs: Any, sample: Any, file: str) -> None:
        raise NotImplementedError


@HOOKS.register_module()
class ClassDrawingHook(DrawingHook):
    """Draws tested images as the network gets them, with their classes, by mmpretrain's visualizer.

    See :class:`DrawingHook` for the arguments.
    """

    def _draw(self, runner: Runner, inputs: Any, sample: Any, file: str) -> None:
        image = inputs.permute(1, 2, 0).cpu().numpy().astype(np.uint8)
        runner.visualizer.visualize_cls(image=image, data_sample=sample, out_file=file, **self.options)


@HOOKS.register_module()
class ImageDrawingHook(DrawingHook):
    """Draws tested images, the truth on the left and what is predicted on the right, by mmdet's or mmseg's visualizer.

    See :class:`DrawingHook` for the arguments.
    """

    def _draw(self, runner: Runner, inputs: Any, sample: Any, file: str) -> None:
        image = imread(sample.img_path, channel_order='rgb')
        name = Path(sample.img_path).name
        runner.visualizer.add_datasample(name, image, sample, out_file=file, **self.options)


@HOOKS.register_module()
class ClipDrawingHook(DrawingHook):
    """Draws tested clips: some of the frames in a row, above them the predicted and the true class.

    See :class:`DrawingHook` for the arguments.
    """

    def _draw(self, runner: Runner, inputs: Any, sample: Any, file: str) -> None:
        # (clips, 3, T, H, W), or (T, 3, H, W) of 2D recognisers.
        frames = inputs[0].permute(1, 2, 3, 0) if inputs.dim() == 5 else inputs.permute(0, 2, 3, 1)
        caption = _caption(sample, (runner.visualizer.dataset_meta or {}).get('classes'))
        picture = strip(frames.cpu().numpy().astype(np.uint8), caption)
        cv2.imwrite(file, picture)


def _caption(sample: Any, classes: Sequence[str] | None) -> str:
    def name(label: int) -> str:
        return classes[label] if classes else f'class {label}'

    score = sample.pred_score
    predicted, true = int(score.argmax()), ', '.join(name(int(label)) for label in sample.gt_label.flatten())
    return f'{name(predicted)} {float(score[predicted]):.2f} (true: {true})'
