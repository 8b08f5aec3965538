"""Inference of images in mmpretrain, in batches, which goes on where one of them cannot be read."""

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from threading import get_ident
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from mmcv.image import bgr2gray
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmpretrain.apis import ImageClassificationInferencer
from mmpretrain.datasets import remove_transform
from mmpretrain.models import MultiLabelClsHead
from mmpretrain.registry import TRANSFORMS

from ..io.image_transforms import guard_images
from .inputs import INPUT_ERRORS, as_array, checked_image
from .pipelines import loading_step, test_dataset_of

_pipelines: WeakKeyDictionary = WeakKeyDictionary()  # model -> the steps of its config, and what was built of them


class Prepared(NamedTuple):
    """An input that went through the pipeline, or the exception that it has raised."""

    image: Any
    sample: dict | None = None
    error: Exception | None = None


class CheckedInferencer(ImageClassificationInferencer):
    """mmpretrain's inferencer, which looks at files before it decodes them and leaves broken ones out."""

    def _init_pipeline(self, cfg: Config) -> Compose:
        """Build the test pipeline with its checks, once for a model: it takes as long as a small network does."""
        steps = test_dataset_of(cfg).pipeline
        known, pipeline = _pipelines.get(self.model, (None, None))
        if known != steps:
            rest = guard_images([TRANSFORMS.build(step) for step in remove_transform(steps, 'LoadImageFromFile')])
            pipeline = Compose([_Load(loading_step(steps)), *rest])
            _pipelines[self.model] = copy.deepcopy(steps), pipeline
        return pipeline

    def postprocess(self, preds: list, visualization: list, return_datasamples: bool = False) -> list:
        """Collect results; of a multi-label head also all labels of an image."""
        for sample in preds:
            sample.set_pred_score(sample.pred_score.float())  # NumPy has no bfloat16
        results = super().postprocess(preds, visualization, return_datasamples)
        if isinstance(self.model.head, MultiLabelClsHead) and not return_datasamples:
            for result, sample in zip(results, preds, strict=True):
                result['pred_labels'] = sample.pred_label.tolist()
        return results

    def stream(
        self,
        inputs: Iterable,
        local: Callable[[Any], Any],
        batch_size: int = 1,
        return_datasamples: bool = False,
        return_logits: bool = False,
        **drawing: Any,
    ) -> Iterator[Any]:
        """Infer images in batches, and yield the result of each, or what it has raised, when its batch was run.

        Args:
            inputs: images.
            local: what makes a file of this machine of each, or raises.
            batch_size: images that are run together.
            return_datasamples: whether results are mmpretrain's ``DataSample``.
            return_logits: whether results have ``logits`` too, what the head gives before softmax or sigmoid.
            **drawing: how results are drawn, by mmpretrain, after the last one.

        Raises:
            ValueError: an unknown setting.
        """
        self._dispatch_kwargs(**drawing)
        images: list[Any] = []
        samples: list[Any] = []
        for batch in self._prepare(inputs, local, batch_size):
            read = [one for one in batch if one.error is None]
            with _recorded(self.model.head) if return_logits else nullcontext() as outputs:
                predictions = self.forward(default_collate([one.sample for one in read])) if read else []
            if drawing:
                images += [one.image for one in read]
                samples += predictions
            results = self.postprocess(predictions, [], return_datasamples)
            if return_logits:
                _add_logits(results, outputs or [])
            rest = iter(results)
            yield from (next(rest) if one.error is None else one.error for one in batch)
        if drawing:
            self.visualize(images, samples, **drawing)

    def _prepare(self, inputs: Iterable, local: Callable[[Any], Any], batch_size: int) -> Iterator[list[Prepared]]:
        """Prepare images in as many threads as PyTorch computes with, a batch while the model runs the one before."""

        def prepare(image: Any) -> Prepared:
            try:
                image = as_array(local(image))
                return Prepared(image, self.pipeline(image))
            except INPUT_ERRORS as error:
                return Prepared(image, error=error)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            chunks = (
                [pool.submit(prepare, image) for image in chunk] for chunk in self._get_chunk_data(inputs, batch_size)
            )
            ahead = next(chunks, None)
            while ahead:
                chunk, ahead = ahead, next(chunks, None)
                yield [future.result() for future in chunk]


@contextmanager
def _recorded(head: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Context manager that records what a head gives in this thread: (batch, classes), float32, on the CPU."""
    outputs, thread = [], get_ident()

    def record(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> None:
        if get_ident() == thread and isinstance(output, torch.Tensor):  # other threads may run the same model
            outputs.append(output.detach().float().cpu())

    handle = head.register_forward_hook(record)
    try:
        yield outputs
    finally:
        handle.remove()


def _add_logits(results: list, outputs: list) -> None:
    """Add what the head has given to the results of a batch.

    Raises:
        ValueError: it is not a tensor (batch, classes).
    """
    if results and not (len(outputs) == 1 and outputs[0].shape[:1] == (len(results),)):
        raise ValueError('return_logits: the head of this network gives no tensor of shape (batch, classes)')
    for result, logits in zip(results, *outputs):
        if isinstance(result, dict):
            result['logits'] = logits.numpy()
        else:
            result.set_field(logits, 'logits')


class _Load:
    """The first step of the pipeline: read a file as the config does, or take an array in its place.

    Args:
        step: the config of the step that loads files.
    """

    def __init__(self, step: dict) -> None:
        loader = TRANSFORMS.build(step)
        (self.load_file,) = guard_images([loader])
        self.gray = getattr(loader, 'color_type', 'color') == 'grayscale'
        self.dtype = np.float32 if getattr(loader, 'to_float32', False) else np.uint8

    def __call__(self, image: Any) -> dict:
        image = checked_image(image, self.gray)
        if isinstance(image, str):
            return self.load_file(dict(img_path=image))
        if self.gray and image.shape[2:] == (3,):
            image = bgr2gray(image)
        size = image.shape[:2]
        return dict(img=image.astype(self.dtype, copy=False), img_path='the image', img_shape=size, ori_shape=size)
