"""Frames one after the other: of a video file or a camera, and into a file."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from .files import unfinished
from .videos import VideoError

FPS = 25.0  # of a source that does not tell


class Camera:
    """A camera, read by OpenCV until it gives no more frames: (height, width, 3), uint8, BGR.

    Args:
        number: of the camera, from 0.

    Attributes:
        fps: frames a second, as it tells; 25 where it does not.
        time: when the frame that iteration has given last was read, in seconds from the first one.

    Raises:
        VideoError: there is no such camera, or OpenCV cannot open it.
    """

    def __init__(self, number: int) -> None:
        self.filename, self.time = f'camera {number}', 0.0
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise VideoError(f'{self.filename}: there is none, or OpenCV cannot open it')
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or FPS

    def __iter__(self) -> Iterator[np.ndarray]:
        start = None
        try:
            while True:
                whole, frame = self._capture.read()
                if not whole:
                    return
                now = time.monotonic()
                start = now if start is None else start
                self.time = now - start
                yield frame
        finally:
            self._capture.release()


@contextmanager
def video_writer(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Context manager that yields a function to write frames, (height, width, 3), uint8, BGR, as MPEG-4.

    The file is there when the context ends, unless by an error; Ctrl-C leaves what was written. Its folder is made.

    Raises:
        OSError: OpenCV cannot write there, or has no such encoder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None

    def write(frame: np.ndarray) -> None:
        nonlocal writer
        if writer is None:
            writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*'mp4v'), fps or FPS, frame.shape[1::-1])
            if not writer.isOpened():
                raise OSError(f'OpenCV cannot write {path}: it has no MPEG-4 encoder, or may not write there')
        writer.write(np.ascontiguousarray(frame))

    with unfinished(path) as temporary:
        complete = True
        try:
            yield write
        except Exception:
            complete = False
            raise
        finally:
            if writer is not None:
                writer.release()
                if complete:
                    temporary.replace(path)
