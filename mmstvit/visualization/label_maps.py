"""Drawings of label maps, for ``tools/test.py --show-dir``.

mmseg's own hook has no folder, and leaves out no sample of a test: it hands each to the backends of the visualizer,
which put the pictures among the logs.
"""

from collections.abc import Sequence
from pathlib import Path

from mmcv.image import imread
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS


@HOOKS.register_module()
class MapDrawingHook(Hook):
    """Draws tested images, the true label map on the left and the predicted one on the right, by mmseg's visualizer.

    Args:
        folder: where the pictures go, one PNG an image, named like it.
        interval: every n-th image is drawn.
    """

    def __init__(self, folder: str, interval: int = 1) -> None:
        self.folder, self.interval, self._count = Path(folder), interval, 0

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence) -> None:
        """Draw the images of a batch."""
        for sample in outputs if is_main_process() else ():
            if self._count % self.interval == 0:
                path = Path(sample.img_path)
                image = imread(str(path), channel_order='rgb')
                file = str(self.folder / f'{path.stem}.png')
                runner.visualizer.add_datasample(path.name, image, sample, out_file=file)
            self._count += 1
