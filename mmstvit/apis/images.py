"""Inference of images in mmpretrain, in batches, which goes on where one of them cannot be read."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from mmcv.image import imread
from mmengine.dataset import Compose, default_collate
from mmpretrain.apis import ImageClassificationInferencer

from ..io.image_check import NOT_DECODED, ImageError, check_image_file
from ..io.image_transforms import guard_images
from .inputs import INPUT_ERRORS, checked_image


class CheckedInferencer(ImageClassificationInferencer):
    """mmpretrain's inferencer, which looks at files before it decodes them and leaves broken ones out.

    Attributes:
        errors: of each input that was taken in the last call what it has raised, or ``None``.
    """

    def preprocess(self, inputs: Iterable, batch_size: int = 1) -> Iterator[dict]:
        """Batches of the inputs that can be read, made of ``batch_size`` inputs each.

        Images are prepared in as many threads as PyTorch computes with, a batch while the model runs the one before.
        """
        self.errors: list[Exception | None] = []
        pipeline = Compose([_load, *guard_images(self.pipeline.transforms)])

        def prepare(image: Any) -> tuple[dict | None, Exception | None]:
            try:
                return pipeline(image), None
            except INPUT_ERRORS as error:
                return None, error

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            chunks = (
                [pool.submit(prepare, image) for image in chunk] for chunk in self._get_chunk_data(inputs, batch_size)
            )
            ahead = next(chunks, None)
            while ahead:
                chunk, ahead = ahead, next(chunks, None)
                prepared = [future.result() for future in chunk]
                self.errors += [error for _, error in prepared]
                read = [sample for sample, error in prepared if error is None]
                if read:
                    yield default_collate(read)

    def visualize(self, ori_inputs: list, preds: list, **kwargs: Any) -> Any:
        """Draw the inputs that were read."""
        read = [image for image, error in zip(ori_inputs, self.errors) if error is None]
        return super().visualize(read, preds, **kwargs)

    def stream(self, inputs: Iterable, batch_size: int) -> Iterator[Any]:
        """As :meth:`infer_list`, one after the other, as soon as its batch was run."""
        told = 0
        for batch in self.preprocess(inputs, batch_size):
            results = iter(self.postprocess(self.forward(batch), []))
            # What was taken since the batch before: the readable ones are this batch.
            taken, told = self.errors[told:], len(self.errors)
            yield from (next(results) if error is None else error for error in taken)
        yield from self.errors[told:]

    def infer_list(self, inputs: list, **kwargs: Any) -> list:
        """The results of the inputs; an exception stands in the place of one that cannot be read."""
        results = iter(self(inputs, **kwargs))
        return [next(results) if error is None else error for error in self.errors]


def _load(image: Any) -> dict:
    """What mmpretrain's inferencer begins with."""
    image = checked_image(image)
    name = image if isinstance(image, str) else 'the image'
    if isinstance(image, str):
        check_image_file(image)
    try:
        array = imread(image)
    except OSError as error:
        raise ImageError(f'{name}: {error.strerror or error}') from error
    if array is None:
        raise ImageError(f'{name}: {NOT_DECODED}')
    return dict(img=array, img_path=name, img_shape=array.shape[:2], ori_shape=array.shape[:2])
