"""Inference of images in mmpretrain, in batches, which goes on where one of them cannot be read."""

from collections.abc import Iterator
from typing import Any

from mmcv.image import imread
from mmengine.dataset import Compose, default_collate
from mmpretrain.apis import ImageClassificationInferencer

from ..datasets.image_files import ImageError, check_image_file, guard_images
from .inputs import INPUT_ERRORS, checked_image


class CheckedInferencer(ImageClassificationInferencer):
    """mmpretrain's inferencer, which looks at files before it decodes them and leaves broken ones out.

    Attributes:
        errors: of each input of the last call what it has raised, or ``None``.
    """

    def preprocess(self, inputs: list, batch_size: int = 1) -> Iterator[dict]:
        """Batches of the inputs that can be read."""
        self.errors: list[Exception | None] = [None] * len(inputs)
        pipeline = Compose([_load, *guard_images(self.pipeline.transforms)])

        def prepared() -> Iterator[dict]:
            for i, image in enumerate(inputs):
                try:
                    yield pipeline(image)
                except INPUT_ERRORS as error:
                    self.errors[i] = error

        yield from map(default_collate, self._get_chunk_data(prepared(), batch_size))

    def visualize(self, ori_inputs: list, preds: list, **kwargs: Any) -> Any:
        """Draw the inputs that were read."""
        read = [image for image, error in zip(ori_inputs, self.errors) if error is None]
        return super().visualize(read, preds, **kwargs)

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
        raise ImageError(f'{name}: it cannot be decoded, it is incomplete or broken')
    return dict(img=array, img_path=name, img_shape=array.shape[:2], ori_shape=array.shape[:2])
