"""Accuracy of dense and recovered networks at budgets of multiply-adds, and their times; each figure once."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from mmstvit import get_model
from mmstvit.apis.models import read_valid_config
from mmstvit.apis.tuning_data import Judge, Samples, load_samples
from mmstvit.errors import one_line
from mmstvit.io.files import json_types
from mmstvit.measure.networks import network_of
from mmstvit.measure.speed import benchmark
from mmstvit.measure.timing import Timing
from mmstvit.models import reduce_, restore_
from mmstvit.models.reduction import methods_for

from .store import read_json, write_json

BUDGETS = (1.0, 0.85, 0.7, 0.5, 0.35, 0.25, 0.2)
CONTROLS = ('Random', 'GridPool')
_KEEPS_ALL = ('ToMeSD',)  # it shortens attention and leaves the number of tokens
_MODES = {'ToMe, mlerp': dict(mode='mlerp'), 'ToFu': dict(mode='tofu')}
_BATCH = dict(cpu=100, cuda=2000)  # what suits caches, what fills a GPU


def variants(model: nn.Module) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the methods that a dense network takes, with options, by the names that tables have."""
    named = {name: (name, {}) for name in methods_for(model) if name not in _KEEPS_ALL}
    return named | {name: ('ToMe', options) for name, options in _MODES.items()}


class Measured:
    """Figures in a JSON file; what is there is not measured again.

    Args:
        path: of the file.
        config: of the dense network.
        device: where networks run.
        most: test images, at the most.
        report: takes a line of progress.
    """

    def __init__(self, path: Path, config: Path, device: str, most: int, report: Callable[[str], None]) -> None:
        self.path, self.config, self.device, self.most, self.report = path, config, device, most, report
        self.data: dict[str, Any] = read_json(path) or {}
        self._samples: Samples | None = None

    def note(self, **settings: Any) -> None:
        """Write settings beside the figures."""
        self.data.update(settings)
        write_json(self.path, self.data)

    def _once(self, part: str, name: str, file: str | Path, make: Callable[[], Any]) -> None:
        """Store what is made under a name, unless it is there and was made with this very checkpoint."""
        stat = Path(file).stat()
        key, known = [stat.st_size, stat.st_mtime_ns, self.most], self.data.setdefault(part, {})
        if known.get(name, {}).get('key') != key:
            known[name] = json_types(dict(key=key, **make()))
            write_json(self.path, self.data)

    def _judge(self, config: Path, checkpoint: str | Path) -> Judge:
        model = get_model(read_valid_config(config), str(checkpoint), self.device)
        if self._samples is None:
            samples = load_samples(model, str(self.config), self.most)
            self._samples = samples._replace(images=samples.images.to(self.device))
        return Judge(model, self._samples, _BATCH[self.device.partition(':')[0]])

    def untrained(self, seed: int, checkpoint: str) -> None:
        """Measure all methods at all budgets, without training."""

        def make() -> dict[str, Any]:
            judge = self._judge(self.config, checkpoint)
            points = {name: _points(judge, *variant, BUDGETS[1:]) for name, variant in variants(judge.model).items()}
            dense = judge.of_logits(judge.dense)['top1']
            self.report(f'untrained, seed {seed}: dense {dense:.2%} of {len(self._samples.images)} images')
            return dict(dense=dense, images=len(self._samples.images), methods=points)

        self._once('untrained', str(seed), checkpoint, make)

    def recovered(self, method: str, kind: str, seed: int, checkpoint: Path, budgets: Sequence[float]) -> None:
        """Measure a recovered checkpoint in the plain dense network, reduced to each budget."""

        def make() -> dict[str, Any]:
            points = _points(self._judge(self.config, checkpoint), method, {}, budgets)
            self.report(f'{method} {kind}, seed {seed}: ' + ', '.join(f'{p["budget"]} {p["top1"]:.2%}' for p in points))
            return dict(points=points)

        self._once('recovered', f'{method} {kind} {seed}', checkpoint, make)

    def whole(self, kind: str, seed: int, config: Path | str, checkpoint: Path) -> None:
        """Measure a network whose reduction is its own."""

        def make() -> dict[str, Any]:
            judge = self._judge(Path(config), checkpoint)
            top1 = judge.of_logits(judge.dense)['top1']
            self.report(f'STViT {kind}, seed {seed}: {top1:.2%}')
            return dict(top1=top1)

        self._once('stvit', f'{kind} {seed}', checkpoint, make)

    def times(self, checkpoint: str, batch_sizes: Sequence[int], dtype: str, rounds: int) -> None:
        """Time all methods at all budgets beside the dense network, in turn."""

        def make() -> dict[str, Any]:
            cfg = read_valid_config(self.config)
            dense = network_of(cfg, 'dense', get_model(cfg, str(checkpoint), self.device))
            networks = [dense]
            for name, (method, options) in variants(dense.model).items():
                for budget in BUDGETS[1:]:
                    model = _reduced(copy.deepcopy(dense.model), method, dict(options, budget=budget))
                    if model is not None:
                        networks.append(replace(dense, label=f'{name} {budget}', model=model))
            self.report(f'timing {len(networks)} networks at batches of {", ".join(map(str, batch_sizes))}, {dtype}')
            timing = Timing(self.device, dtype=dtype, rounds=rounds, min_time=0.05)
            report = benchmark(networks, timing, 0, batch_sizes)
            kept = ('network', 'batch_size', 'seconds', 'ratio', 'multiply_adds')
            rows = [{name: row[name] for name in kept} for row in report['results']]
            return dict(environment=report['environment'], rows=rows)

        self._once('times', f'{dtype} {" ".join(map(str, batch_sizes))}', checkpoint, make)


def _points(judge: Judge, method: str, options: dict[str, Any], budgets: Sequence[float]) -> list[dict[str, Any]]:
    """Judge a network at budgets; those that the method cannot keep are left out."""
    points = []
    for budget in budgets:
        settings = dict(options, budget=budget)
        model = _reduced(judge.model, method, settings)
        if model is None:
            continue
        described = dict(budget=budget, share=model.reduction.share, tokens=model.reduction.tokens)
        restore_(model)
        points.append({**described, **judge.of_options(method, settings)})
    return points


def _reduced(model: nn.Module, method: str, options: dict[str, Any]) -> nn.Module | None:
    """Reduce a model in place; ``None`` where the method cannot cost so little."""
    try:
        return reduce_(model, method, **options)
    except ValueError as error:
        if 'cannot be kept' not in one_line(error):
            raise
        return None
