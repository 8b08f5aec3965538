"""Drawings of video predictions."""

from pathlib import Path

import cv2
import numpy as np

from ..io.streams import video_writer
from ..io.videos import Video
from .fonts import text_line

_FRAMES = 6
_HEIGHT = 160
_CAPTION = 28


def evenly(length: int, most: int) -> np.ndarray:
    """Return the numbers of up to ``most`` of ``length`` frames, evenly spread, the first and the last among them."""
    return np.linspace(0, length - 1, min(most, length)).round().astype(int)


def read_strip(path: str | Path, caption: str) -> np.ndarray:
    """Draw evenly spaced frames of a video file in a row below a caption: (height, width, 3), BGR."""
    video = Video(str(path))
    frames = video.read(evenly(len(video), _FRAMES))
    return strip(np.stack(list(frames.values()))[..., ::-1], caption)


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


def strip(frames: np.ndarray, caption: str) -> np.ndarray:
    """Draw some of the frames (T, H, W, 3), RGB, in a row below a caption: (height, width, 3), BGR."""
    chosen = frames[evenly(len(frames), _FRAMES)]
    width = round(_HEIGHT * chosen.shape[2] / chosen.shape[1])
    row = np.concatenate([cv2.resize(frame, (width, _HEIGHT)) for frame in chosen], axis=1)
    # Networks take RGB, OpenCV writes BGR.
    return captioned(row[..., ::-1], text_line(caption, _CAPTION))
