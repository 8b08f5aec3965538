"""Drawings of video predictions, for ``tools/test.py --show-dir`` and ``mmstvit infer --draw``.

mmaction2's own hook passes its visualizer an argument that it does not take, and its visualizer looks for labels under
names that its data samples no longer have (1.2.0, its last release).
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from ..io.streams import video_writer
from ..io.videos import Video
from ..registry import HOOKS
from .fonts import text_line

_FRAMES = 6
_HEIGHT = 160
_CAPTION = 28


@HOOKS.register_module()
class ClipDrawingHook(Hook):
    """Draws tested clips: some of the frames in a row, above them the predicted and the true class.

    Args:
        folder: where the pictures go, one PNG a clip, named by its number.
        interval: every n-th clip is drawn.
    """

    def __init__(self, folder: str, interval: int = 1) -> None:
        self.folder = Path(folder)
        self.interval = interval
        self._count = 0

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence) -> None:
        """Draw the clips of a batch."""
        if not is_main_process():
            return
        classes = (runner.visualizer.dataset_meta or {}).get('classes')
        for inputs, sample in zip(data_batch['inputs'], outputs):
            if self._count % self.interval == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(self.folder / f'{self._count}.png'), _strip(_frames(inputs), _caption(sample, classes)))
            self._count += 1


def read_strip(path: str | Path, caption: str) -> np.ndarray:
    """Draw evenly spaced frames of a video file in a row below a caption: (height, width, 3), BGR."""
    video = Video(str(path))
    frames = video.read(np.linspace(0, len(video) - 1, min(_FRAMES, len(video))).round())
    return _strip(np.stack(list(frames.values()))[..., ::-1], caption)


def write_captioned(path: Path, video: str | Path, caption: str) -> None:
    """Write a video file again, as mp4, with a caption above its frames.

    Raises:
        VideoError: it cannot be read.
        OSError: it cannot be written.
    """
    source = Video(str(video))
    title = text_line(caption, _CAPTION)
    with video_writer(path, source.fps) as write:
        for frame in source:
            write(captioned(frame, title))


def captioned(image: np.ndarray, title: np.ndarray) -> np.ndarray:
    """Put a line of text (of :func:`.text_line`) above an image, made wider where the text is: (H, W, 3), BGR."""
    height, width = image.shape[:2]
    canvas = np.full((height + len(title), max(width, title.shape[1] + 12), 3), 255, dtype=np.uint8)
    canvas[len(title) :, :width] = image
    canvas[: len(title), 6 : 6 + title.shape[1]] = title
    return canvas


def _frames(inputs: Tensor) -> np.ndarray:
    """Return frames (T, H, W, 3) of the model's inputs (clips, 3, T, H, W), or (T, 3, H, W) of 2D recognisers."""
    frames = inputs[0].permute(1, 2, 3, 0) if inputs.dim() == 5 else inputs.permute(0, 2, 3, 1)
    return frames.cpu().numpy().astype(np.uint8)


def _caption(sample, classes: Sequence[str] | None) -> str:
    def name(label: int) -> str:
        return classes[label] if classes else f'class {label}'

    score = sample.pred_score
    predicted, true = int(score.argmax()), ', '.join(name(int(label)) for label in sample.gt_label.flatten())
    return f'{name(predicted)} {float(score[predicted]):.2f} (true: {true})'


def _strip(frames: np.ndarray, caption: str) -> np.ndarray:
    chosen = frames[np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)]
    width = round(_HEIGHT * chosen.shape[2] / chosen.shape[1])
    row = np.concatenate([cv2.resize(frame, (width, _HEIGHT)) for frame in chosen], axis=1)
    # Networks take RGB, OpenCV writes BGR.
    return captioned(row[..., ::-1], text_line(caption, _CAPTION))
