"""Models of the demo page: find trained ones, answer an input, and compare costs with those of the dense baseline."""

import contextlib
import copy
import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from ..apis.baseline import dense_baseline
from ..apis.files import IMAGES, VIDEOS
from ..apis.inference import inference_model
from ..apis.inputs import INPUT_ERRORS
from ..apis.models import classes_of, get_model
from ..apis.results import as_line, draw_prediction, record
from ..engine.whole_checkpoints import newest_whole_checkpoint
from ..errors import UsageError, as_usage_error, one_line
from ..measure.networks import Network, input_shape, network_of
from ..measure.speed import costs
from ..measure.timing import Job, Timing, interleave
from ..models.reduction import methods_for, reduce_, restore_
from ..visualization import has_semantic_tokens, token_maps
from ..visualization.groups import groups_picture, token_groups
from ..visualization.pictures import picture

KINDS = {
    'mmpretrain': 'image classifier',
    'mmaction': 'video recogniser',
    'mmdet': 'detector',
    'mmseg': 'segmentor',
}
THRESHOLD = 0.5  # least score of an object
ROUNDS = 11  # in which a network and its baseline are timed in turn
BATCHES = (1, 16)  # one input of a small network takes the time of its calls, not of its arithmetic
AFFORDABLE = 4e9  # multiply-adds of a forward of several inputs: larger networks are timed on one alone
_TOP = 5


@dataclass(frozen=True, eq=False)
class Answer:
    """Prediction of one input, with its pictures.

    Attributes:
        classes: the names of the best classes with their scores, of a segmentor with their shares of the pixels; of a
            detector the objects, in a line.
        drawing: the input with the prediction, (height, width, 3), uint8 RGB.
        tokens: the picture of the token maps, or of the groups of a reduction, uint8 RGB; ``None`` where every patch
            has its token.
    """

    classes: dict[str, float] | str
    drawing: np.ndarray
    tokens: np.ndarray | None


@dataclass(frozen=True)
class Cost:
    """Cost of one input.

    Attributes:
        multiply_adds: of the whole network.
        backbone: those of the backbone, of a detector or segmentor, whose other parts are the same in both; else
            ``None``.
        parameters: of the whole network.
        milliseconds: of a forward, the median over the rounds, by the number of inputs.
    """

    multiply_adds: int
    backbone: int | None
    parameters: int
    milliseconds: dict[int, float]


class DemoModel:
    """A model that the page offers; it is built when it is first asked for.

    Args:
        name: as it is shown.
        config: path of the config.
        weights: path or address of the checkpoint.
        device: where it runs.
        trust: whether code in the checkpoint may run.
    """

    def __init__(self, name: str, config: Path, weights: str, device: str = 'cpu', trust: bool = False) -> None:
        self.cfg = Config.fromfile(config)
        self.scope = self.cfg.get('default_scope')
        self.kind = KINDS.get(self.scope, 'model')
        self.name = f'{name} ({self.kind})'
        self.weights, self.device, self.trust = weights, device, trust
        self.reduction: tuple[str, float] | None = None

    @property
    def takes(self) -> str:
        """What an input is called."""
        return 'clip' if self.scope == 'mmaction' else 'image'

    @functools.cached_property
    def model(self) -> torch.nn.Module:
        """The toolbox's model with its weights.

        Raises:
            UsageError: the checkpoint cannot be used.
            ImportError: the toolbox is not installed.
        """
        return get_model(self.cfg, self.weights, self.device, self.trust)

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the classes."""
        return classes_of(self.model)

    @functools.cached_property
    def has_tokens(self) -> bool:
        """Whether there are semantic tokens to be shown."""
        return has_semantic_tokens(self.model)

    @functools.cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods of token reduction that the model can be run with."""
        return methods_for(self.model)

    def reduce(self, method: str | None, budget: float = 1.0) -> None:
        """Reduce the tokens of the model, or run it as it is.

        Args:
            method: one of ``methods``, or ``None``.
            budget: the share of the blocks' multiply-adds that may be left.

        Raises:
            UsageError: the method cannot keep to the budget; the model is run as it is.
        """
        if self.reduction == (method, budget) or (method is None and self.reduction is None):
            return
        if self.reduction:
            restore_(self.model)
        self.reduction = None
        vars(self).pop('_networks', None)
        vars(self).pop('_counted', None)
        if method is not None:
            with as_usage_error(ValueError):
                reduce_(self.model, method, budget=budget)
            self.reduction = (method, budget)

    def answer(self, path: str | Path) -> Answer:
        """Predict one file.

        Raises:
            UsageError: it cannot be read, or is of the wrong kind; the text names the file without its folder.
        """
        path = Path(path)
        self._check_kind(path)
        try:
            if self.reduction:
                groups = token_groups(self.model, path)
                reduction: Any = self.model.reduction
                result, tokens = groups.result, groups_picture(groups, reduction.summary)
            elif self.has_tokens:
                maps = token_maps(self.model, path)
                result, tokens = maps.result, picture(maps)
            else:
                result, tokens = inference_model(self.model, path), None
        except INPUT_ERRORS as error:
            raise UsageError(one_line(error).replace(str(path), path.name)) from error
        prediction = dict(file=str(path), **record(result, self.scope, self.model, THRESHOLD))
        drawing = draw_prediction(result, prediction, self.scope, self.model, THRESHOLD)
        return Answer(self._named(prediction), drawing, tokens)

    def _check_kind(self, path: Path) -> None:
        other = {'image': VIDEOS, 'clip': IMAGES}[self.takes]
        if path.suffix.lower() in other:
            kind, model = ('a clip', 'a video recogniser') if self.takes == 'image' else ('an image', 'an image model')
            raise UsageError(f'{path.name} is {kind} and this model takes {self.takes}s: choose {model} for it')

    def _named(self, prediction: dict) -> dict[str, float] | str:
        if 'objects' in prediction:
            return as_line(prediction)
        if 'areas' in prediction:
            return {one['class']: one['share'] for one in prediction['areas'][:_TOP]}
        scores = [float(score) for score in prediction['pred_scores']]
        classes = list(self.classes or map(str, range(len(scores))))
        best = sorted(range(len(scores)), key=lambda i: -scores[i])[:_TOP]
        # Some data sets have two classes of one name.
        return {classes[i] if classes.count(classes[i]) == 1 else f'{classes[i]} ({i})': scores[i] for i in best}

    @functools.cached_property
    def _networks(self) -> list[Network]:
        """The network, and its dense baseline if it has one."""
        networks = [network_of(self.cfg, self.name, self.model)]
        if self.reduction:
            return [*networks, network_of(self.cfg, 'dense baseline', restore_(copy.deepcopy(self.model)))]
        with contextlib.suppress(ValueError):  # it has no semantic tokens
            networks.append(network_of(dense_baseline(self.cfg), 'dense baseline'))
            networks[1].model.to(self.device)
        return networks

    @functools.cached_property
    def _shape(self) -> tuple[int, ...]:
        return input_shape(self._networks[0], None)

    @functools.cached_property
    def _counted(self) -> list[dict]:
        """Of each network its multiply-adds, those of its backbone and its parameters."""
        counted = []
        for network in self._networks:
            row = costs(network, self._shape, device=self.device)
            row['backbone'] = None
            if self.scope in ('mmdet', 'mmseg'):
                row['backbone'] = costs(network, self._shape, 'backbone', self.device)['multiply_adds']
            counted.append(row)
        return counted

    @property
    def input_size(self) -> str:
        """The size of an input in the test, for reading."""
        return ' x '.join(map(str, self._shape[1:]))

    def costs(self) -> list[Cost]:
        """Return the cost of one input for the network and, where it has fewer tokens, for its dense baseline.

        Raises:
            UsageError: the size of an input is not known.
        """
        most = max(row['multiply_adds'] for row in self._counted)
        timed = {batch: self._milliseconds(batch) for batch in BATCHES if batch == 1 or batch * most < AFFORDABLE}
        return [
            Cost(row['multiply_adds'], row['backbone'], row['parameters'], {n: times[i] for n, times in timed.items()})
            for i, row in enumerate(self._counted)
        ]

    def _milliseconds(self, batch: int) -> list[float]:
        """Of a forward of each network, which are run in turn."""
        timing = Timing(self.device, min_time=0.05)
        jobs = [Job(network, self._shape, batch, timing) for network in self._networks]
        seconds = interleave([job.seconds for job in jobs], [job.times_a_round() for job in jobs], ROUNDS)
        return [1000 * statistics.median(own) for own in seconds]


def trained_models(work_dirs: Path, device: str, trust: bool) -> tuple[list[DemoModel], list[str]]:
    """Find the models trained in the folders of ``work_dirs``, and report those that cannot be offered."""
    models, faults = [], []
    for folder in sorted(path for path in work_dirs.glob('*') if path.is_dir()):
        # A training writes its config, overrides and all, beside its checkpoints.
        configs = sorted(folder.glob('*.py'), key=lambda path: path.stat().st_mtime)
        weights = newest_whole_checkpoint(folder)[0] if configs else None
        if weights is None:
            continue
        try:
            model = DemoModel(folder.name, configs[-1], str(weights), device, trust)
        except Exception as error:  # a config is a program: it may raise anything
            faults.append(f'{configs[-1]} is no valid config: {one_line(error)}')
            continue
        if model.scope in KINDS:
            models.append(model)
    return sorted(models, key=lambda model: list(KINDS).index(model.scope)), faults
