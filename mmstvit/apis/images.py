"""Inference of images in mmpretrain, in batches, which goes on where one of them cannot be read."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmpretrain.apis import ImageClassificationInferencer
from mmpretrain.models import MultiLabelClsHead

from .inputs import INPUT_ERRORS, as_array
from .pipelines import image_pipeline


class CheckedInferencer(ImageClassificationInferencer):
    """mmpretrain's inferencer, which looks at files before it decodes them and leaves broken ones out."""

    def _init_pipeline(self, cfg: Config) -> Compose:
        """Return the test pipeline of the model with its checks."""
        return image_pipeline(self.model)

    @torch.no_grad()
    def forward(self, inputs: dict, return_logits: bool = False) -> list:
        """Run a batch, and return its samples.

        Raises:
            ValueError: logits are asked for, and the head gives no tensor (batch, classes).
        """
        if not return_logits:
            return super().forward(inputs)
        data = self.model.data_preprocessor(inputs, False)
        features = self.model.extract_feat(data['inputs'])
        logits = self.model.head(features)
        if not isinstance(logits, torch.Tensor) or logits.shape[:1] != data['inputs'].shape[:1]:
            raise ValueError('return_logits: the head of this network gives no tensor of shape (batch, classes)')
        samples = self.model.head.predict(features, data['data_samples'])
        for sample, one in zip(samples, logits.float().cpu(), strict=True):
            sample.set_field(one, 'logits')
        return samples

    def postprocess(self, preds: list, visualization: list, return_datasamples: bool = False) -> list:
        """Collect results; of a multi-label head also all labels of an image."""
        for sample in preds:
            sample.set_pred_score(sample.pred_score.float())  # NumPy has no bfloat16
        results = super().postprocess(preds, visualization, return_datasamples)
        for result, sample in zip(results, preds if not return_datasamples else ()):
            if isinstance(self.model.head, MultiLabelClsHead):
                result['pred_labels'] = sample.pred_label.tolist()
            if 'logits' in sample:
                result['logits'] = sample.logits.numpy()
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
            read = [(image, one) for image, one in batch if isinstance(one, dict)]
            predictions = self.forward(default_collate([one for _, one in read]), return_logits) if read else []
            if drawing:
                images += [image for image, _ in read]
                samples += predictions
            results = iter(self.postprocess(predictions, [], return_datasamples))
            yield from (next(results) if isinstance(one, dict) else one for _, one in batch)
        if drawing:
            self.visualize(images, samples, **drawing)

    def _prepare(self, inputs: Iterable, local: Callable[[Any], Any], batch_size: int) -> Iterator[list[tuple]]:
        """Prepare images in as many threads as PyTorch computes with, a batch while the model runs the one before.

        Yields:
            Batches, of each image it and what the pipeline has made of it or the exception that it has raised.
        """

        def prepare(image: Any) -> tuple[Any, dict | Exception]:
            try:
                image = as_array(local(image))
                return image, self.pipeline(image)
            except INPUT_ERRORS as error:
                return image, error

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            chunks = (
                [pool.submit(prepare, image) for image in chunk] for chunk in self._get_chunk_data(inputs, batch_size)
            )
            ahead = next(chunks, None)
            while ahead:
                chunk, ahead = ahead, next(chunks, None)
                yield [future.result() for future in chunk]
