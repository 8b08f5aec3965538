"""Video reading with OpenCV, and one-line errors for the readers of mmaction2."""

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import UsageError
from .image_check import MAX_PIXELS, max_pixels

NEAR = 250  # frames that are rather decoded than skipped: seeking decodes from a key frame, in x264 every 250th
_PICTURES = 4  # so many of the largest size may be decoded at once
_BOXES = (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'uuid', b'moof', b'mfra', b'sidx', b'styp', b'pdin')
# Playlists are text, and FFmpeg would read the files that they name.
_TEXT = re.compile(rb'[\t\n\r\x20-\x7e\x80-\xff]+|(#EXTM3U|ffconcat).*', re.DOTALL)


class VideoError(UsageError, ValueError):
    """A video that cannot be read; the message is one line that begins with its name."""


class Video:
    """A video file, decoded by OpenCV.

    Its length is the number of frames that the file tells or, in formats that tell none, what its duration stands for.
    With a variable frame rate, frames that are far apart are found by their time at the mean rate, as by OpenCV, unless
    :attr:`times` was asked for.

    Args:
        filename: the file; as in mmaction2, ``.mp4`` may be left out.
        near: how many frames ahead are decoded, and not sought.

    Attributes:
        fps: frames a second.
        time: presentation time of the frame that iteration has given last, in seconds from the first one.

    Raises:
        VideoError: there is no such file, or none that OpenCV can read.
    """

    def __init__(self, filename: str, near: int = NEAR) -> None:
        self.filename, self._path, self.time = filename, _checked(filename), 0.0
        self._open()
        self.fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._length, self._near = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), near
        if self._length < 1:  # no duration either, as browsers record clips: OpenCV cannot seek in them
            self._length = self._near = sum(1 for _ in iter(self._capture.grab, False))
            self._open()

    def __len__(self) -> int:
        return self._length

    def _open(self) -> None:
        # As bytes, because names that are no UTF-8 crash OpenCV; by FFmpeg alone, because another backend takes `1.mp4`
        # for numbered images.
        name: Any = os.fsencode(self._path)
        settings = [cv2.CAP_PROP_N_THREADS, 1]  # starting threads takes longer than decoding a short clip
        self._capture, self._place = cv2.VideoCapture(name, cv2.CAP_FFMPEG, settings), 0
        if not self._capture.isOpened():
            raise VideoError(f'{self.filename}: it cannot be read, it is damaged, incomplete or has no frames')

    @functools.cached_property
    def times(self) -> np.ndarray:
        """Presentation times: (frames + 1,), of the start of each frame and the end of the last one, in seconds from 0.

        The file is decoded for it, once.
        """
        self._open()
        read = [self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 for _ in iter(self._capture.grab, False)]
        self._open()
        times = np.maximum.accumulate(np.array(read[: len(self)] or [0.0]))
        if times[-1] <= times[0]:  # one frame, or a format without times
            return np.arange(len(self) + 1) / (self.fps or 1)
        # What is missing at the end is taken to go on as the last frame there.
        rest = (times[-1] - times[-2] or 1 / self.fps) * np.arange(1, len(self) - len(times) + 2)
        return np.append(times, times[-1] + rest) - times[0]

    def _seek(self, index: int) -> None:
        if 'times' not in vars(self):
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            self._place = round(self._capture.get(cv2.CAP_PROP_POS_FRAMES))
            return
        # OpenCV goes to a time: to be before the frame, and to read off where it is.
        self._capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * max(self.times[index] - 1, 0))
        whole = self._capture.grab()
        seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        self._place = 1 + int(np.abs(self.times[:-1] - seconds).argmin()) if whole else len(self)

    def _go(self, index: int) -> None:
        """Seek to a frame; OpenCV's seeking is exact but for the first frames of formats without an index."""
        if not 0 <= index - self._place <= self._near:
            if index > self._near:
                self._seek(index)
            if index <= self._near or index < self._place:
                self._open()
        while self._place < index and self._capture.grab():
            self._place += 1

    def __iter__(self) -> Iterator[np.ndarray]:
        """Decode all frames in their order, to the last one that is there.

        Raises:
            VideoError: more is missing than :meth:`read` passes over.
        """
        self._open()
        start = None
        while True:
            whole, frame = self._capture.read()
            if not whole:
                return self._check_end()
            seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            start = seconds if start is None else start
            # Formats without times have them all at 0.
            self.time = seconds - start if seconds > start else self._place / (self.fps or 1)
            self._place += 1
            yield frame

    def _check_end(self) -> None:
        """Refuse a video whose frames end here."""
        if len(self) - self._place > min(len(self) / 10, self.fps):
            what = f'frame {self._place} of {len(self)} cannot be decoded, the file is cut off or damaged'
            raise VideoError(f'{self.filename}: {what}')

    def read(self, indices: Iterable[int]) -> dict[int, np.ndarray]:
        """Decode frames, each once.

        The end of a video may be missing, up to a tenth of its length and a second: durations are those of the sound
        too, and frames may be counted that are not shown. The last frame that is there stands for these.

        Args:
            indices: of the frames, in any order, from 0.

        Returns:
            ``{index: frame}`` of frames (height, width, 3), uint8, BGR.

        Raises:
            IndexError: the video has no such frame.
            VideoError: a frame cannot be decoded, or all of them have more than four times the pixels of the largest
                image that is allowed.
        """
        wanted, most = sorted({int(i) for i in indices}), _PICTURES * max_pixels()
        width, height = (int(self._capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if len(wanted) * height * width > most:
            raise VideoError(
                f'{self.filename}: {len(wanted)} frames of {width} x {height} pixels would be decoded at once, more '
                f'than {most} pixels; raise {MAX_PIXELS} if this is meant'
            )
        frames: dict[int, Any] = {}
        last: Any = None
        for index in wanted:
            if not 0 <= index < len(self):
                raise IndexError(f'{self.filename} has {len(self)} frames, and frame {index} is asked for')
            self._go(index)
            whole, frame = self._capture.read() if self._place == index else (False, None)
            if whole:
                self._place = index + 1
            else:
                self._check_end()
                frame = self.read([index - 1])[index - 1] if last is None else last
            frames[index] = last = frame
        return frames


def _checked(filename: str) -> Path:
    path = existing(filename)
    fault = _fault(path) if path else 'there is no such file'
    if path is None or fault:
        raise VideoError(f'{filename}: {fault}')
    return path


def _fault(path: Path) -> str | None:
    size = path.stat().st_size
    with path.open('rb') as file:
        start, place = file.read(512), 0
        if not start or _TEXT.fullmatch(start):
            return 'it is text and no video' if start else 'the file is empty'
        while place + 8 <= size:  # the outermost boxes of MP4 and QuickTime (ISO/IEC 14496-12, 4.2), or chunks of AVI
            file.seek(place)
            head = file.read(16)
            length = 8 + int.from_bytes(head[4:8], 'little') if head[:4] == b'RIFF' else int.from_bytes(head[:4], 'big')
            if length == 1:
                length = int.from_bytes(head[8:], 'big')
            if length < 8 or head[:4] != b'RIFF' and head[4:8] not in _BOXES:
                return None
            place += length
    return f'it was cut off: {size} bytes are there of at least {place}' if place > size else None


def existing(filename: str) -> Path | None:
    """Return the path of a video; mmaction2 adds ``.mp4`` to a name without a suffix."""
    path = Path(filename)
    if path.is_file():
        return path
    path = Path(filename + '.mp4')
    return path if not Path(filename).suffix and path.is_file() else None


def guard_reading(steps: Sequence[Callable]) -> list[Callable]:
    """Wrap the steps of a pipeline that open and decode videos, so that errors name the file.

    They raise :class:`VideoError` where the file is not there or broken, has no frames, or a single one and clips of
    several are taken. Files that mmaction2's steps for OpenCV would read are read by :class:`Video`: those seek for
    every frame but the next, and put an earlier frame in the place of one that cannot be decoded. The other steps stay
    as they are.
    """
    lengths = [getattr(step, 'clip_len', None) for step in steps]
    clip_len = max((length for length in lengths if isinstance(length, int)), default=1)
    return [functools.partial(_guarded, step, clip_len) if role_of(step) else step for step in steps]


def role_of(step: Any) -> str | None:
    """Return ``'Init'`` for a step that opens a video, ``'Decode'`` for one that decodes it, else ``None``."""
    match = re.fullmatch(r'(?:Decord|OpenCV|PyAV|PIMS)(Init|Decode)', type(step).__name__)
    return match[1] if match else None


def _guarded(step: Callable, clip_len: int, results: dict) -> dict:
    filename, on_disk = results['filename'], getattr(step, 'io_backend', None) == 'disk'
    try:
        if on_disk and type(step).__name__ == 'OpenCVInit':
            video = Video(filename)
            results = dict(results, video_reader=video, total_frames=len(video), avg_fps=video.fps)
        elif isinstance(results.get('video_reader'), Video):
            results = step(dict(results, video_reader=results['video_reader'].read(results['frame_inds'].flat)))
        else:
            if on_disk:
                _checked(filename)
            results = step(results)
    except (ImportError, MemoryError, VideoError):  # a reader that is not installed is not the file's fault
        raise
    except Exception as error:  # the readers raise anything, decord a plain Exception of its own
        why = str(error).strip().partition('\n')[0] or type(error).__name__
        raise VideoError(f'{filename}: it cannot be read ({why})') from error
    if role_of(step) == 'Init' and results['total_frames'] < min(clip_len, 2):
        has = f'one frame, and clips of {clip_len} are taken' if results['total_frames'] == 1 else 'no frames'
        raise VideoError(f'{filename}: it has {has}')
    return results
