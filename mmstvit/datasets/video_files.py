"""Video files that cannot be read: said in one line with the file's name, by any of mmaction2's readers.

decord 0.6.0 ends the whole process (a segmentation fault) at some files that were cut off. So what the file itself says
of its length is looked at before it is opened, and decord runs in a process of its own.
"""

import functools
import os
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..image_check import MAX_PIXELS, max_pixels
from ..paths import is_address
from . import decord_process

_BOXES = (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'uuid', b'moof', b'mfra', b'sidx', b'styp', b'pdin')
_PICTURES = 4  # so many of the largest size may be decoded at once
_TEXT = re.compile(rb'[\t\n\r\x20-\x7e\x80-\xff]+')


class VideoError(ValueError):
    """A video that cannot be read; its text is one line that begins with the file's name."""


def check_video_file(filename: str) -> None:
    """Refuse a file that is not there, is empty, is text or was cut off; costs a few short reads.

    Names with a scheme (``s3://...``) are left to mmengine.

    Raises:
        VideoError: the file's name, and what is wrong with it.
    """
    if is_address(filename):
        return
    path = existing(filename)
    if path is None:
        raise VideoError(f'{filename}: there is no such file')
    try:
        with path.open('rb') as file:
            size = os.fstat(file.fileno()).st_size
            fault = _fault(file, size)
    except OSError as error:
        raise VideoError(f'{filename}: {error.strerror or error}') from error
    if fault:
        raise VideoError(f'{filename}: {fault}')


def existing(filename: str) -> Path | None:
    """The file of a name; mmaction2 adds ``.mp4`` to one without a suffix."""
    path = Path(filename)
    if path.is_file():
        return path
    path = Path(filename + '.mp4')
    return path if not Path(filename).suffix and path.is_file() else None


def _fault(file: Any, size: int) -> str | None:
    start = file.read(512)
    if not start:
        return 'the file is empty'
    if _TEXT.fullmatch(start):
        return 'it is text and no video'
    if start[4:8] in _BOXES:
        return _fault_of_boxes(file, size)
    if start[:4] == b'RIFF' and len(start) >= 12:
        said = 8 + struct.unpack('<I', start[4:8])[0]
        return _cut_off(said, size) if said > size else None
    return None


def _fault_of_boxes(file: Any, size: int) -> str | None:
    """Walk over the outermost boxes of an MP4 or QuickTime file (ISO/IEC 14496-12, section 4.2)."""
    place, kinds = 0, []
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, kind = struct.unpack('>I4s', head[:8])
        if kind not in _BOXES:
            break  # what programs leave after the end of a file
        if length == 1 and len(head) == 16:
            length = struct.unpack('>Q', head[8:])[0]
        elif length == 0:  # up to the end
            length = size - place
        if length < 8:
            return 'its structure is broken'
        if place + length > size:
            return _cut_off(place + length, size)
        kinds.append(kind)
        place += length
    if b'moov' not in kinds:
        return 'it has no index (moov): its recording or download was not finished'
    return None if b'mdat' in kinds else 'it has no frames'


def _cut_off(said: int, size: int) -> str:
    return f'it was cut off: {size} bytes are there of at least {said}'


def guard_reading(steps: Sequence[Callable]) -> list[Callable]:
    """The steps of a built pipeline, of which those that open and decode the video tell what is wrong with a file.

    They raise :class:`VideoError` where the file is not there or broken, has no frames, or a single one and clips of
    several are taken. The other steps stay as they are.
    """
    lengths = [step.clip_len for step in steps if isinstance(getattr(step, 'clip_len', None), int)]
    guarded = []
    for step in steps:
        role = role_of(step)
        guarded.append(_Guarded(step) if role else step)
        if role == 'Init':
            guarded.append(_RequireFrames(max(lengths, default=1)))
    return guarded


def role_of(step: Any) -> str | None:
    """``'Init'`` for the step of a pipeline that opens a video, ``'Decode'`` for the one that decodes it."""
    found = re.fullmatch(r'(?:Decord|OpenCV|PyAV|PIMS)(Init|Decode)', type(step).__name__)
    return found[1] if found else None


class _Guarded:
    def __init__(self, step: Callable) -> None:
        self.step = step
        if type(step).__name__ == 'DecordInit' and step.io_backend == 'disk':
            step._get_video_reader = functools.partial(_Reader, num_threads=step.num_threads)

    def __call__(self, results: dict) -> dict:
        filename = results['filename']
        if getattr(self.step, 'io_backend', None) == 'disk':
            check_video_file(filename)
        try:
            return self.step(results)
        except (ImportError, MemoryError, VideoError):  # a reader that is not installed is not the file's fault
            raise
        except Exception as error:  # the readers raise anything, decord a plain Exception of its own
            raise VideoError(f'{filename}: it cannot be read ({_reason(error)})') from error


class _Reader(decord_process.Reader):
    """decord's reader by the name of the file, with a limit of what is decoded at once."""

    def __init__(self, filename: str, num_threads: int) -> None:
        super().__init__(str(existing(filename)), num_threads)
        self.filename = filename

    def get_batch(self, indices: Sequence[int]) -> Any:
        (height, width), most = self.size, _PICTURES * max_pixels()
        if len(indices) * height * width > most:
            raise VideoError(
                f'{self.filename}: {len(indices)} frames of {width} x {height} pixels would be decoded at once, more '
                f'than {most} pixels; raise {MAX_PIXELS} if this is meant'
            )
        return super().get_batch(indices)


class _RequireFrames:
    def __init__(self, clip_len: int) -> None:
        self.clip_len = clip_len

    def __call__(self, results: dict) -> dict:
        if results['total_frames'] < 1:
            raise VideoError(f'{results["filename"]}: it has no frames')
        if results['total_frames'] == 1 and self.clip_len > 1:
            raise VideoError(f'{results["filename"]}: it has one frame, and clips of {self.clip_len} are taken')
        return results


def _reason(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), '')
    # decord puts the time and a place in its C++ code before its message.
    return re.sub(r'^\[[\d:]+\] \S+?:\d+: ', '', line) or type(error).__name__
