"""Images that a schedule is searched on, and what a network with fewer tokens predicts of them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from torch import Tensor, nn

from ..engine.datasets import build_dataset
from ..errors import UsageError, one_line
from ..layers.adapters import transformer_of
from ..layers.steps import SelfAttention, build_steps
from ..layers.tokens import Tokens
from ..measure.block_times import recorded_blocks
from ..models import reduce_, restore_
from .configs import find_config
from .files import IMAGES, find_inputs
from .inputs import INPUT_ERRORS
from .models import classes_of, read_valid_config
from .pipelines import image_pipeline, test_dataset_of, toolbox_scope

COST_IMAGES = 16  # that layers are tried on alone


class Samples(NamedTuple):
    """Images as a network gets them.

    Attributes:
        images: (n, C, H, W), on the CPU.
        labels: (n,), ``None`` where they are not known.
    """

    images: Tensor
    labels: Tensor | None

    def part(self, start: int, step: int, most: int | None = None) -> 'Samples':
        """Return every ``step``-th sample from ``start`` on, ``most`` of them where it is given."""
        labels = None if self.labels is None else self.labels[start::step][:most]
        return Samples(self.images[start::step][:most], labels)


def read_classifier_config(path: str) -> Config:
    """Read the config of a classifier of mmpretrain, by its path or name.

    Raises:
        UsageError: it is none.
    """
    file = find_config(path)
    cfg = read_valid_config(file)
    if cfg.default_scope != 'mmpretrain':
        raise UsageError(f'{file} is of {cfg.default_scope}: only classifiers of mmpretrain can be tuned')
    return cfg


def load_samples(model: nn.Module, data: str, most: int) -> Samples:
    """Read images, drawn at random with a fixed seed where there are more than are wanted.

    Args:
        model: of :func:`mmstvit.get_model`, whose test pipeline prepares the files of a folder.
        data: a folder of images, whose labels are known where all are in folders named as the classes, or a config,
            whose test data set is taken with its pipeline and labels.
        most: how many, at the most.

    Raises:
        UsageError: there are fewer than two, one cannot be read, or their sizes differ.
    """
    with toolbox_scope('mmpretrain'):
        folder = Path(data).is_dir() and not list(Path(data).glob('*.py'))  # else the work dir of a training
        samples = _from_folder(model, data, most) if folder else _from_config(data, most)
        sizes = {tuple(sample['inputs'].shape) for sample in samples}
        if len(sizes) > 1:
            raise UsageError(f'{data}: the test pipeline gives images of several sizes, {sorted(sizes)[:2]} among them')
        batch = default_collate(samples)
        preprocessor: Any = model.data_preprocessor
        images = preprocessor(batch, False)['inputs'].cpu()
    labels = [sample['data_samples'].get('gt_label') for sample in samples]
    have_labels = all(label is not None and label.numel() == 1 for label in labels)
    # The preprocessor has moved the labels to the model's device too.
    return Samples(images, torch.cat([label.flatten().cpu() for label in labels]) if have_labels else None)


def _drawn(number: int, most: int, data: str) -> list[int]:
    if number < 2:
        raise UsageError(f'{data} has {number} images: half of them are searched on, so give two at the least')
    return torch.randperm(number, generator=torch.Generator().manual_seed(0))[:most].tolist()


def _from_folder(model: nn.Module, folder: str, most: int) -> list[dict[str, Any]]:
    files, pipeline = find_inputs([folder], IMAGES), image_pipeline(model)
    labels = {name: i for i, name in enumerate(classes_of(model) or ())}
    named = all(_top_folder(file, folder) in labels for file in files)
    samples = []
    for i in _drawn(len(files), most, folder):
        try:
            samples.append(pipeline(str(files[i])))
            if named:
                samples[-1]['data_samples'].set_gt_label(labels[_top_folder(files[i], folder)])
        except INPUT_ERRORS as error:
            line = one_line(error)
            raise UsageError(line if str(files[i]) in line else f'{files[i]}: {line}') from error
    return samples


def _top_folder(file: Path, folder: str) -> str:
    """Return the name of the folder in ``folder`` that a file is in, its own name where it is in none."""
    return file.relative_to(folder).parts[0]


def _from_config(path: str, most: int) -> list[dict[str, Any]]:
    dataset = build_dataset(test_dataset_of(read_classifier_config(path)))
    return [dataset[i] for i in _drawn(len(dataset), most, path)]


class _Known(SelfAttention):
    """A step that does not run its block: what comes of it is known."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        return self.tokens


class Judge:
    """Compares a network whose tokens are reduced with itself without reduction, on some images.

    Args:
        model: a classifier; it is reduced for the time of a comparison alone.
        samples: what it is judged on.
        batch_size: images that are run together.

    Raises:
        UsageError: its head gives no tensor of logits.
    """

    def __init__(self, model: nn.Module, samples: Samples, batch_size: int) -> None:
        self.model, self.samples, self.batch_size = model, samples, batch_size
        self.dense = self.logits()
        # Blocks as steps call them, and for the cost of layers the number of one and the tokens that enter it.
        self._blocks: list[Any] = []
        self._layer, self._entering = -1, list[Tokens]()

    def logits(self, most: int | None = None) -> Tensor:
        """Return what the network gives as it is now, (n, classes), float64, of the first ``most`` images or all."""
        return torch.cat([self._logits_of(images) for images in self.samples.images[:most].split(self.batch_size)])

    @torch.inference_mode()
    def _logits_of(self, images: Tensor) -> Tensor:
        logits = self.model(images.to(next(self.model.parameters()).device), mode='tensor')
        if not isinstance(logits, Tensor) or logits.shape[:1] != (len(images),) or logits.dim() != 2:
            raise UsageError('the head of this network gives no tensor of shape (batch, classes)')
        return logits.double().cpu()

    def divergence(self, logits: Tensor) -> float:
        """Return the mean Kullback-Leibler divergence of predictions from the dense network's, in nats.

        Args:
            logits: (n, classes), of the first n images.
        """
        dense, other = self.dense[: len(logits)].log_softmax(-1), logits.log_softmax(-1)
        return float((dense.exp() * (dense - other)).sum(-1).mean())

    def of_options(self, method: str, options: dict[str, Any], most: int | None = None) -> dict[str, Any]:
        """Judge a reduction: ``divergence``, ``agreement`` and ``top1``, the latter two from 0 to 1.

        Args:
            method: a name of ``METHODS``.
            options: of the method.
            most: how many of the images, from the first on; by default all.
        """
        reduce_(self.model, method, **options)
        try:
            return self.of_logits(self.logits(most))
        finally:
            restore_(self.model)

    def of_layer(self, method: str, layer: int, amounts: Sequence[int]) -> list[float]:
        """Return the divergence where one layer alone removes tokens, for each number of them, on a few of the images.

        What enters the layer is that of the dense network, and is computed once for all methods where layers are asked
        for in their order.
        """
        batches, transformer = self.samples.images[:COST_IMAGES].split(self.batch_size), transformer_of(self.model)
        network, divergences = transformer.network, []
        entering = self._tokens_at(layer, batches)
        for r in amounts:
            alone = [r if i == layer else 0 for i in range(network.num_layers)]
            steps = build_steps(dict(type=method, r=alone), network)[layer:]
            try:
                logits = []
                for images, tokens in zip(batches, entering, strict=True):
                    transformer.run([*(_Known(tokens) for _ in range(layer)), *steps])
                    logits.append(self._logits_of(images))
            finally:
                transformer.restore()
            divergences.append(self.divergence(torch.cat(logits)))
        return divergences

    @torch.inference_mode()
    def _tokens_at(self, layer: int, batches: Sequence[Tensor]) -> list[Tokens]:
        """Return the tokens of each batch that enter a layer of the dense network, going on from an earlier layer."""
        if not 0 <= self._layer <= layer:
            runs = [recorded_blocks(self.model, partial(self._logits_of, images)) for images in batches]
            self._layer, self._blocks, self._entering = 0, runs[0][0], [tokens for _, tokens in runs]
        for block in self._blocks[self._layer : layer]:
            self._entering = [SelfAttention()(block, tokens) for tokens in self._entering]
        self._layer = layer
        return self._entering

    def of_logits(self, logits: Tensor) -> dict[str, Any]:
        """Judge logits (n, classes) of the first n images, see :meth:`of_options`."""
        labels, predicted = self.samples.labels, logits.argmax(-1)
        agreement = float((predicted == self.dense[: len(logits)].argmax(-1)).double().mean())
        top1 = None if labels is None else float((predicted == labels[: len(logits)]).double().mean())
        return dict(divergence=self.divergence(logits), agreement=agreement, top1=top1)
