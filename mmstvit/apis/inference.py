"""Inference of images and videos, in all toolboxes: ``infer`` and ``inference_model``."""

from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from ..engine.mixed_precision import check_dtype
from ..errors import UsageError
from .inputs import INPUT_ERRORS, LocalCopies, checked_path, infer_each
from .models import chosen_device, get_model, scope_of
from .pipelines import image_pipeline


def infer(
    model: torch.nn.Module,
    inputs: Iterable,
    batch_size: int = 1,
    dtype: torch.dtype = torch.float32,
    **kwargs: Any,
) -> Iterator[Any]:
    """Infer images or videos, and yield the result of each as soon as it is there.

    Of images the next batch is prepared while the model runs on one.

    Args:
        model: of :func:`mmstvit.get_model`, in evaluation mode.
        inputs: paths, addresses, arrays, tensors or images of PIL, as of :func:`mmstvit.inference_model`.
        batch_size: images that are run together, in mmpretrain; the other toolboxes run one at a time.
        dtype: ``torch.bfloat16`` or, on a GPU, ``torch.float16`` run the model with automatic mixed precision.
        **kwargs: of mmpretrain's inferencer, e.g. ``show_dir='folder'`` to draw the results, at the end, and
            ``return_logits=True`` for what the head gives before softmax, as ``logits``. For video
            ``window`` and ``stride`` in seconds, to infer a long one window by window, and ``progress=False`` for no
            bar (:func:`mmstvit.apis.video.infer_video`).

    Yields:
        Of each input in turn what the toolbox gives (:func:`mmstvit.inference_model`), or the exception that it has
        raised.

    Raises:
        ValueError: a setting that is unknown, would have no effect, or asks for a ``dtype`` that the device has not.
    """
    scope, device = scope_of(model), next(model.parameters()).device.type
    try:
        check_dtype(dtype, device)
    except UsageError as error:
        raise ValueError(str(error)) from error
    with LocalCopies() as copies:
        results, none_left = _stream(model, scope, inputs, copies.local, batch_size, **kwargs), object()
        while True:
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                result = next(results, none_left)
            if result is none_left:
                return
            yield copies.by_address(result)


def inference_model(
    model: str | PathLike | Config | torch.nn.Module,
    *args: Any,
    device: str | torch.device | None = None,
    batch_size: int = 1,
    dtype: torch.dtype = torch.float32,
    trust_checkpoint: bool = False,
    return_exceptions: bool = False,
    **kwargs: Any,
) -> Any:
    """Infer images or videos: ``inference_model(model, inputs)`` or ``inference_model(model, checkpoint, inputs)``.

    Args:
        model: a name of :func:`list_models`, the path of a config, a config, or a model from :func:`get_model`.
        *args: a checkpoint's path or URL (optional), then the inputs: an image's path or array (height, width, 3), in
            uint8 in BGR order as OpenCV reads it, an image of PIL, a tensor (3, height, width), uint8 or floating-point
            from 0 to 1, in RGB order as torchvision reads it, or a list of them; for video a clip's path. In the place
            of a path an address (http or https), which is downloaded and looked at as a file is. A name without a
            checkpoint means the published weights.
        device: where to run, by default the model's own device, or a GPU where there is one.
        batch_size: images that are run together, in mmpretrain; the other toolboxes run one at a time.
        dtype: as of :func:`mmstvit.apis.infer`.
        trust_checkpoint: as in :func:`get_model`.
        return_exceptions: of a list, whether an exception stands in the place of an input that cannot be read. Without,
            the first one is raised when the others have been inferred; its attribute ``results`` is that list.
        **kwargs: as of :func:`mmstvit.apis.infer`, e.g. ``show_dir='folder'`` to draw what a classifier predicts, or
            ``return_logits=True``.

    Returns:
        What the toolbox gives. Of mmpretrain a dict with ``pred_scores``, the probabilities of all classes (after
        softmax; of a multi-label head after a sigmoid for each), ``pred_label``, the number of the best one,
        ``pred_score``, its probability, and ``pred_class``, its name; of a multi-label head also ``pred_labels``; with
        ``return_logits`` also ``logits``, what the head gives before softmax or sigmoid. Of mmdet a ``DetDataSample``,
        whose ``pred_instances.scores`` are probabilities; of mmseg a ``SegDataSample``, whose ``pred_sem_seg.data``
        (1, height, width) has the number of a class for each pixel; of mmaction2 an ``ActionDataSample``, whose
        ``pred_score`` has probabilities where the head's ``average_clips`` is ``'prob'``. A list gives a list.

    Raises:
        ValueError: an unknown name, an input that is no image, cannot be read or has too many pixels (the environment
            variable ``MMSTVIT_MAX_PIXELS`` allows more), or a setting that would have no effect.
        FileNotFoundError: an input or the checkpoint is not there.
        TypeError: not one or two positional arguments after the model.
    """
    if len(args) not in (1, 2):
        raise TypeError('inference_model takes (model, inputs) or (model, checkpoint, inputs)')
    *checkpoint, inputs = args
    if isinstance(model, torch.nn.Module):
        if checkpoint or trust_checkpoint:
            raise TypeError('a built model has its weights already: leave checkpoint and trust_checkpoint out')
        model = model.eval() if device is None else model.to(chosen_device(device)).eval()
    else:
        model = get_model(model, checkpoint[0] if checkpoint else True, chosen_device(device), trust_checkpoint)
    many = isinstance(inputs, (list, tuple))
    results = list(infer(model, inputs if many else [inputs], batch_size, dtype, **kwargs))
    errors = [result for result in results if isinstance(result, INPUT_ERRORS)]
    if errors and not (many and return_exceptions):
        errors[0].results = results  # type: ignore[union-attr]
        raise errors[0]
    return results if many else results[0]


def _stream(
    model: torch.nn.Module, scope: str, inputs: Iterable, local: Callable[[Any], Any], batch_size: int, **kwargs: Any
) -> Iterator[Any]:
    """Infer inputs with a model of a toolbox; ``local`` makes a file of this machine of an input that is an address."""
    if scope == 'mmpretrain':
        from .images import CheckedInferencer

        return CheckedInferencer(model).stream(inputs, local, batch_size, **kwargs)
    if batch_size != 1:
        raise ValueError(
            f'batch_size={batch_size} has no effect here: mmdet, mmseg and mmaction2 infer one input at a time'
        )
    if scope == 'mmaction':
        from .video import infer_video

        return infer_each(lambda video: infer_video(model, checked_path(local(video), 'video'), **kwargs), inputs)
    if kwargs:
        raise ValueError(f'{", ".join(kwargs)}: inference with {scope} has no such setting')
    return infer_each(lambda image: _infer_scene(model, local(image)), inputs)


@torch.no_grad()
def _infer_scene(model: torch.nn.Module, image: Any) -> Any:
    # The toolboxes' own functions choose how to load all images by the first, or look for a pipeline at the top of the
    # config.
    return model.test_step(pseudo_collate([image_pipeline(model)(image)]))[0]  # type: ignore[operator]
