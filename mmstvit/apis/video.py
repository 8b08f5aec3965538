"""Inference on videos: whole, as the config's test does it, or long ones window by window."""

import copy
import re
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from mmaction.apis import inference_recognizer
from mmengine.dataset import Compose
from rich.progress import Progress
from torch import Tensor

from ..io.videos import Video, guard_reading, role_of
from ..registry import type_name
from .pipelines import test_dataset_of, toolbox_scope


class WindowScores(NamedTuple):
    """Scores of the windows of a long video.

    Attributes:
        spans: (windows, 2), start and end of each in seconds: presentation times of its first frame, and of the frame
            behind its last.
        scores: (windows, classes), of each window what an ``ActionDataSample`` has as ``pred_score``.
        mean: (classes,), of all windows.
    """

    spans: np.ndarray
    scores: Tensor
    mean: Tensor


def infer_video(
    model: torch.nn.Module,
    video: str,
    window: float | None = None,
    stride: float | None = None,
    progress: bool = True,
) -> Any:
    """Infer one video with the test pipeline of the model's config.

    Args:
        model: mmaction2's recogniser.
        video: a path.
        window: length of the windows in seconds; ``None`` for the video as a whole, as in the test. Each window is a
            video of its own for the test pipeline, with all its clips and crops; one that is shorter than a clip is
            played again, as mmaction2 does with short videos.
        stride: seconds from one window to the next, by default those of a window. The last window ends with the
            video, so it may begin earlier than that.
        progress: whether windows show a progress bar.

    Returns:
        mmaction2's ``ActionDataSample``, or :class:`WindowScores`.

    Raises:
        ValueError: the video cannot be read, or window and stride mean nothing.
    """
    # mmaction2 looks for a variable `test_pipeline` of the config, which not all have.
    steps = copy.deepcopy(test_dataset_of(model.cfg).pipeline)
    with toolbox_scope('mmaction'):
        pipeline = Compose(steps if window is None else [_by_opencv(step) for step in steps]).transforms
    sample = dict(filename=video, label=-1, start_index=0, modality='RGB')
    if window is not None:
        return _infer_windows(model, sample, pipeline, window, stride, progress)
    if stride is not None:
        raise ValueError(f'stride={stride} has no effect without a window')
    return inference_recognizer(model, sample, Compose(guard_reading(pipeline)))


def _infer_windows(
    model: torch.nn.Module, sample: dict, steps: list, window: float, stride: float | None, progress: bool
) -> WindowScores:
    """Infer the windows of a video, which is opened once; only frames that the pipeline takes are decoded."""
    stride = window if stride is None else stride
    if window <= 0 or stride <= 0:
        raise ValueError(f'window={window} and stride={stride} must be greater than 0, in seconds')
    behind = next((i for i, step in enumerate(steps, 1) if role_of(step) == 'Init'), None)
    if behind is None:
        raise ValueError('windows need a test pipeline with a step that opens videos, such as OpenCVInit')
    steps = guard_reading(steps)
    opened = Compose(steps[:behind])(sample)
    times = _times(opened)
    spans = _spans(times, window, stride)
    if max(end - start for start, end in spans) < 2:
        raise ValueError(f'window={window} seconds are less than two frames of {sample["filename"]}')
    rest, scores = Compose(steps[behind:]), []
    with Progress(disable=not progress) as bar:
        for start, end in bar.track(spans, description='windows'):
            part = dict(opened, start_index=start, total_frames=end - start)
            scores.append(inference_recognizer(model, part, rest).pred_score)
    return WindowScores(times[np.array(spans)], torch.stack(scores), torch.stack(scores).mean(dim=0))


def _by_opencv(step: dict) -> dict:
    """Replace steps for other readers: OpenCV goes to a frame, PyAV's keep all frames up to the last one wanted."""
    match = re.fullmatch(r'(?:Decord|PyAV|PIMS)(Init|Decode)', type_name(step))
    return dict(type=f'mmaction.OpenCV{match[1]}') if match else step


def _times(opened: dict) -> np.ndarray:
    """Return the presentation times of frames, and behind them the end of the last one, in seconds."""
    reader = opened['video_reader']
    if isinstance(reader, Video):
        return reader.times
    return np.arange(opened['total_frames'] + 1) / reader.fps  # mmcv's, of files that are elsewhere


def _spans(times: np.ndarray, window: float, stride: float) -> list[tuple[int, int]]:
    """Return first frame and the one behind the last of windows that cover the frames; window and stride in seconds."""

    def frame_at(seconds: float) -> int:
        return int(np.abs(times - seconds).argmin())

    left = times[-1] - window
    starts = [frame_at(i * stride) for i in range(ceil(left / stride - 1e-6))]
    last = frame_at(max(left, 0))
    spans = [(start, max(frame_at(times[start] + window), start + 1)) for start in starts if start < len(times) - 1]
    return list(dict.fromkeys([*spans, (min(last, len(times) - 2), len(times) - 1)]))
