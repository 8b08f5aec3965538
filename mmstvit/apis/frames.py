"""Predict each frame of a video or a camera with a model of images."""

from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..io.streams import Camera, video_writer
from ..io.videos import Video
from .inference import infer
from .models import scope_of
from .results import THRESHOLD, draw_prediction, record


def predict_frames(
    model: torch.nn.Module,
    source: Video | Camera,
    batch_size: int = 1,
    threshold: float = THRESHOLD,
    draw: Path | None = None,
    topk: int = 1,
    dtype: torch.dtype = torch.float32,
    most: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Infer frames in their order, and yield a record of each as soon as it is there.

    Args:
        model: of :func:`mmstvit.get_model`, one of images.
        source: opened.
        batch_size: as of :func:`.infer`; of a camera each further one is a frame of delay.
        threshold: least score of an object, of a detector.
        draw: an mp4 file that gets the frames with their predictions.
        topk: as of :func:`.record`.
        dtype: as of :func:`.infer`.
        most: frames after which it ends; by default with the source.

    Yields:
        ``file``, the number of the ``frame`` from 0, its ``time`` (of presentation, in seconds from the first one), and
        its :func:`.record`.

    Raises:
        VideoError: the source cannot be read on.
    """
    scope = scope_of(model)
    waiting: deque[tuple[np.ndarray, float]] = deque()

    def frames() -> Iterator[np.ndarray]:
        for frame in islice(source, most):
            waiting.append((frame, source.time))
            yield frame

    with video_writer(draw, source.fps) if draw else nullcontext() as write:
        for number, result in enumerate(infer(model, frames(), batch_size, dtype)):
            frame, time = waiting.popleft()
            if isinstance(result, Exception):
                raise result
            prediction = dict(file=str(source.filename), frame=number, time=round(time, 3))
            prediction.update(record(result, scope, model, threshold, topk))
            if write:
                write(draw_prediction(result, prediction, scope, model, threshold, frame[..., ::-1])[..., ::-1])
            yield prediction
