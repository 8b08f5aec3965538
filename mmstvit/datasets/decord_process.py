"""decord in a process of its own: a file at which it crashes or hangs costs that process, and is told by name.

decord 0.6.0 ends its process at some broken files. :class:`Reader` has the methods of ``decord.VideoReader`` that
mmaction2's steps use. All readers of a process share one decoder, which begins with the first of them, is begun anew
after a crash and ends with the process. It is this file run as a script, so that it starts without PyTorch in half a
second.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

SECONDS = 300  # for one answer, however long the video is


class DecoderError(Exception):
    """What decord says against a file, or that it crashed."""


class _Decoder:
    """The process, and the one request that it answers at a time."""

    def __init__(self) -> None:
        self.lock, self.process = threading.Lock(), None

    def ask(self, **request: Any) -> tuple[dict, np.ndarray | None]:
        """The answer to a request, see :func:`_serve`, and the frames with it.

        Raises:
            DecoderError: decord cannot do it, has crashed, or does not come to an end.
            ImportError: there is no decord.
        """
        with self.lock:
            if self.process is None:
                self._start()
            late, begin = threading.Timer(SECONDS, self.process.kill), time.monotonic()
            late.start()
            try:
                self.process.stdin.write(json.dumps(request).encode() + b'\n')
                self.process.stdin.flush()
                answer = self._answer()
                frames = np.empty(answer['shape'], np.uint8) if 'shape' in answer else None
                if frames is not None and self.process.stdout.readinto(memoryview(frames).cast('B')) < frames.nbytes:
                    raise EOFError
            except (EOFError, BrokenPipeError):
                code, slow = self.end(), time.monotonic() - begin >= SECONDS
                why = f'was not done after {SECONDS} seconds' if slow else f'crashed at it ({_name(code)})'
                raise DecoderError(f'decord {why}') from None
            except BaseException:  # Ctrl-C between a request and its answer
                self.end()
                raise
            finally:
                late.cancel()
        if 'error' in answer:
            raise DecoderError(answer['error'])
        return answer, frames

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            fault = self._answer().get('error')
        except EOFError:
            fault = 'it ends the process that imports it'
        if fault:
            self.end()
            raise ImportError(f'decord cannot be used, which reads videos: {fault}')

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line.endswith(b'\n'):
            raise EOFError
        return json.loads(line)

    def end(self) -> int | None:
        """End the process, and return how it ended."""
        process, self.process = self.process, None
        if process is None:
            return None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # it ends at the end of its requests
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            process.stdout.close()


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f'exit code {code}'


_decoder = _Decoder()


def _forget() -> None:
    """In a fork the process, and perhaps a lock that is held, are the parent's."""
    global _decoder
    _decoder = _Decoder()


atexit.register(lambda: _decoder.end())
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget)


class _Frames:
    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames

    def asnumpy(self) -> np.ndarray:
        """The frames, as decord's arrays give them."""
        return self.frames


class Reader:
    """A video, as ``decord.VideoReader`` is one.

    Args:
        path: the file.
        num_threads: of decord.

    Attributes:
        size: height and width of the first frame, or ``None`` where there are no frames.

    Raises:
        DecoderError: decord cannot read it.
        ImportError: there is no decord.
    """

    def __init__(self, path: str, num_threads: int = 0) -> None:
        self.file = dict(path=os.path.abspath(path), threads=num_threads)
        answer, _ = _decoder.ask(do='open', **self.file)
        self.length, self.fps, self.size = answer['length'], answer['fps'], answer['size']
        self.place = 0

    def __len__(self) -> int:
        return self.length

    def get_avg_fps(self) -> float:
        """Frames a second."""
        return self.fps

    def get_batch(self, indices: Sequence[int]) -> _Frames:
        """Frames (number, height, width, 3), RGB."""
        _, frames = _decoder.ask(do='frames', indices=[int(i) for i in indices], **self.file)
        return _Frames(frames)

    def seek(self, index: int) -> None:
        """Go to the key frame before ``index``."""
        self.place = int(index)

    def next(self) -> _Frames:
        """The frame at that place, (height, width, 3)."""
        _, frames = _decoder.ask(do='key', indices=[self.place], **self.file)
        return _Frames(frames[0])


# ------------------------------------------------------------------------------------------------- the other process
def _serve() -> None:
    """Answer requests, a line of JSON each, until there are no more.

    ``do`` is ``'open'``, ``'frames'`` or ``'key'``, ``path`` and ``threads`` say of what, ``indices`` which frames. The
    answer is a line of JSON; where it has a ``shape``, so many bytes follow.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # its parent obeys them
    out = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # what decord prints is no answer

    def answer(content: dict, frames: np.ndarray | None = None) -> None:
        out.write(json.dumps(content).encode() + b'\n')
        if frames is not None:
            out.write(memoryview(np.ascontiguousarray(frames)).cast('B'))
        out.flush()

    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))  # modules beside this file are no packages
    try:
        import decord
    except Exception as error:  # it is loaded with its libraries
        return answer(dict(error=_line(error)))
    answer({})
    opened, reader = None, None
    for line in sys.stdin.buffer:
        request, frames = json.loads(line), None
        file = request['path'], request['threads']
        try:
            if request['do'] == 'open' or opened != file:
                opened, reader = None, None
                reader = decord.VideoReader(_source(file[0]), num_threads=file[1])
                opened = file
            if request['do'] == 'open':
                size = reader[0].shape[:2] if len(reader) else None
                reader.seek(0)
                answer(dict(length=len(reader), fps=reader.get_avg_fps(), size=size))
                continue
            if request['do'] == 'frames':
                frames = reader.get_batch(request['indices']).asnumpy()
            else:
                reader.seek(request['indices'][0])
                frames = reader.next().asnumpy()[None]
        except Exception as error:  # decord raises a plain Exception of its own
            answer(dict(error=_line(error)))
        else:
            answer(dict(shape=frames.shape), frames)


def _source(path: str) -> Any:
    try:
        path.encode()
    except UnicodeEncodeError:  # decord takes names in UTF-8 alone
        return open(path, 'rb')
    return path


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), '') or type(error).__name__


if __name__ == '__main__':
    _serve()
