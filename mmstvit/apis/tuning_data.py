"""Images that a schedule is searched on, and what a network with fewer tokens predicts of them."""

from collections.abc import Sequence
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
from ..models import reduce_, restore_
from .configs import find_config
from .files import IMAGES, find_inputs
from .inputs import INPUT_ERRORS
from .models import classes_of, read_valid_config
from .pipelines import image_pipeline, test_dataset_of, toolbox_scope


class Samples(NamedTuple):
    """Images as a network gets them.

    Attributes:
        images: (n, C, H, W), on the CPU.
        labels: (n,), ``None`` where they are not known.
    """

    images: Tensor
    labels: Tensor | None

    def part(self, start: int, step: int) -> 'Samples':
        """Return every ``step``-th sample, from ``start`` on."""
        labels = None if self.labels is None else self.labels[start::step]
        return Samples(self.images[start::step], labels)


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
    known = all(label is not None and label.numel() == 1 for label in labels)
    # The preprocessor has moved the labels to the model's device too.
    return Samples(images, torch.cat([label.flatten().cpu() for label in labels]) if known else None)


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


class _Once(SelfAttention):
    """Self-attention that runs the first time, and gives what came of it every time."""

    done: Tokens | None = None

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        if self.done is None:
            self.done = super().forward(block, tokens)
        return self.done


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

    def logits(self) -> Tensor:
        """Return what the network gives as it is now, (n, classes), float64."""
        return torch.cat([self._logits_of(images) for images in self.samples.images.split(self.batch_size)])

    @torch.inference_mode()
    def _logits_of(self, images: Tensor) -> Tensor:
        logits = self.model(images.to(next(self.model.parameters()).device), mode='tensor')
        if not isinstance(logits, Tensor) or logits.shape[:1] != (len(images),) or logits.dim() != 2:
            raise UsageError('the head of this network gives no tensor of shape (batch, classes)')
        return logits.double().cpu()

    def divergence(self, logits: Tensor) -> float:
        """Return the mean Kullback-Leibler divergence of predictions from the dense network's, in nats."""
        dense, other = self.dense.log_softmax(-1), logits.log_softmax(-1)
        return float((dense.exp() * (dense - other)).sum(-1).mean())

    def of_options(self, method: str, options: dict[str, Any]) -> dict[str, Any]:
        """Judge a reduction: ``divergence``, ``agreement`` and ``top1``, the latter two from 0 to 1.

        Args:
            method: a name of ``METHODS``.
            options: of the method.
        """
        reduce_(self.model, method, **options)
        try:
            return self.of_logits(self.logits())
        finally:
            restore_(self.model)

    def of_layer(self, method: str, layer: int, amounts: Sequence[int]) -> list[float]:
        """Return the divergence where one layer alone removes tokens, for each number of them.

        The layers before it do the same for each number, and run once for each batch.
        """
        transformer = transformer_of(self.model)
        network = transformer.network
        alone = [[r if i == layer else 0 for i in range(network.num_layers)] for r in amounts]
        plans = [build_steps(dict(type=method, r=r), network)[layer:] for r in alone]
        outputs: list[list[Tensor]] = [[] for _ in plans]
        try:
            for images in self.samples.images.split(self.batch_size):
                before = [_Once() for _ in range(layer)]
                for steps, logits in zip(plans, outputs):
                    transformer.run([*before, *steps])
                    logits.append(self._logits_of(images))
        finally:
            transformer.restore()
        return [self.divergence(torch.cat(logits)) for logits in outputs]

    def of_logits(self, logits: Tensor) -> dict[str, Any]:
        """Judge logits (n, classes), see :meth:`of_options`."""
        labels, predicted = self.samples.labels, logits.argmax(-1)
        agreement = float((predicted == self.dense.argmax(-1)).double().mean())
        top1 = None if labels is None else float((predicted == labels).double().mean())
        return dict(divergence=self.divergence(logits), agreement=agreement, top1=top1)
