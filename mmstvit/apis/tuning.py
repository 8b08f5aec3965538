"""Find how many tokens each layer should remove for a network to be as fast as it must: ``tune``."""

import copy
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.progress import Progress

from ..errors import UsageError, as_usage_error, suggest
from ..io.files import json_types, write_json
from ..layers.adapters import transformer_of
from ..measure.block_times import BlockTimes, image_grid, measure_block_times, turns
from ..measure.networks import Network, network_of
from ..measure.report import environment
from ..measure.speed import benchmark
from ..measure.timing import Timing
from ..models import reduce_
from ..models.reduction import methods_for, reduction_of
from .configs import find_config, find_run
from .models import chosen_device, get_model
from .tuning_data import Judge, Samples, load_samples, read_classifier_config
from .tuning_report import write_report
from .tuning_schedules import Schedules
from .tuning_search import Plan, Target, within

_NOT_BY_DEFAULT = ('Random', 'ToMeSD')  # a control, and one for maps, which keeps the number of tokens
_NEVER = ('GridPool', 'Expedite')  # where tokens lie in a layer depends on all layers before it
_POINTS = 5  # of each method in the plot
_WITHIN = 0.05  # that predicted and measured time may differ by


class _State:
    """What was measured, in a file that a second run with the same settings begins from."""

    def __init__(self, path: Path, settings: dict) -> None:
        key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self.path = path
        self.data: dict[str, Any] = dict(key=key, times={}, costs={}, results={})
        try:
            stored = json.loads(path.read_text())
        except (OSError, ValueError):  # none, or one that was cut off
            return
        if isinstance(stored, dict) and stored.get('key') == key:
            self.data = stored

    def once(self, part: str, name: str, make: Callable, *args: Any, **kwargs: Any) -> Any:
        """Return what is stored under a name, made and written first where it is not there."""
        if name not in self.data[part]:
            made = make(*args, **kwargs)
            self.data[part][name] = json_types(
                asdict(made) if is_dataclass(made) and not isinstance(made, type) else made
            )
            write_json(self.path, self.data)
        return self.data[part][name]


def tune(
    model: str | PathLike,
    data: str | PathLike,
    target: str = '2x',
    checkpoint: str | PathLike | None = None,
    methods: Sequence[str] | None = None,
    batch_size: int = 8,
    out: str | PathLike | None = None,
    images: int = 128,
    timing: Timing | None = None,
    trust_checkpoint: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find how many tokens each layer of a classifier should remove for it to be as fast as it must.

    Nothing is trained. The time of a block by its number of tokens is measured once (:class:`.BlockTimes`). What the
    reduction of a layer costs is the KL divergence of the predictions from the dense network's when that layer alone
    reduces. Dynamic programming (:func:`.front`) finds the schedule of each method with the least sum of costs; it
    assumes that costs of layers add up, and that a layer's depends on the share of its tokens that it removes, as found
    with all tokens before it. The methods' schedules are then compared as whole networks on the same images. Half of
    the images are for that; on the other half the best is compared with the method's one number for all layers at about
    the same predicted time.

    Args:
        model: a classifier of mmpretrain: a config, its name, or a work dir.
        data: a folder of images without labels, or a config, whose test data set is taken.
        target: ``'2x'`` as fast, ``'10ms'`` a batch, or ``'0.5macs'``, the share of the blocks' multiply-adds.
        checkpoint: the weights; by default those of the work dir, or those that are published for the model.
        methods: names of ``METHODS``, in any case; by default all that the model takes but controls.
        batch_size: images that are run together.
        out: folder for the results, by default ``work_dirs/<config name>/tune``.
        images: how many are used, at the most.
        timing: where networks are timed and how often, in float32; by default on a GPU where there is one.
        trust_checkpoint: as of :func:`mmstvit.get_model`.
        progress: where progress is shown.

    Returns:
        What is in ``schedule.json``. Beside it there are ``config.py``, which inherits the given one, ``pareto.png``,
        ``README.md``, and ``state.json``, by which a second run with the same settings measures nothing again.

    Raises:
        UsageError: a target that is none or out of reach, data without images, a model that cannot be reduced.
    """
    goal, progress = Target.parse(target), progress or Progress(disable=True)
    if batch_size < 1 or images < 2:
        raise UsageError('the batch size must be at least 1, and the number of images at least 2')
    timing = timing or Timing(chosen_device(None), rounds=7, min_time=0.1)
    if (timing.part, timing.dtype, timing.compile, timing.train_step) != ('model', 'float32', False, False):
        raise UsageError('whole networks are tuned, in float32, as they are: leave dtype, part and the like out')
    name, checkpoint = find_run(str(model), None if checkpoint is None else str(checkpoint))
    path, cfg = find_config(name), read_classifier_config(name)
    built = get_model(cfg, checkpoint or True, timing.device, trust_checkpoint)
    methods = _methods(built, methods)
    samples = load_samples(built, str(data), images)
    out = Path(out or Path('work_dirs') / path.stem / 'tune')
    out.mkdir(parents=True, exist_ok=True)
    state = _State(out / 'state.json', _settings(cfg, checkpoint, str(data), samples, batch_size, timing))
    given: dict[str, Any] = dict(
        model=str(model), checkpoint=checkpoint, data=str(data), target=str(goal), methods=methods
    )
    task = _Task(network_of(cfg, path.stem, built), samples, goal, batch_size, timing, state, progress)
    result = state.once('results', f'{goal} {",".join(methods)}', _result, task, methods)
    given.update(batch_size=batch_size, most_images=images, device=str(timing.device), out=str(out))
    result = {**given, **result}
    write_report(out, result, path)
    return result


def _settings(
    cfg: Config, checkpoint: str | None, data: str, samples: Samples, batch_size: int, timing: Timing
) -> dict[str, Any]:
    """Return all that times and costs depend on."""
    file = Path(checkpoint) if checkpoint else None
    stat = file.stat() if file and file.is_file() else None
    setting = environment(timing, samples.images.shape[1:], '')
    return dict(
        model=cfg.model.to_dict(),
        checkpoint=[checkpoint, stat and stat.st_size, stat and stat.st_mtime_ns],
        data=[os.path.abspath(data), hashlib.sha256(samples.images.numpy().tobytes()).hexdigest()],
        batch_size=batch_size,
        timing=asdict(timing),
        machine={key: setting[key] for key in ('device', 'threads', 'torch')},
    )


def _methods(model: torch.nn.Module, wanted: Sequence[str] | None) -> list[str]:
    if reduction_of(model) is not None:
        raise UsageError('the tokens of this model are reduced already: give the config of the dense one')
    with as_usage_error(ValueError):
        transformer_of(model)
    known = {name.lower(): name for name in methods_for(model) if name not in _NEVER}
    if wanted is None:
        return [name for name in known.values() if name not in _NOT_BY_DEFAULT]
    for name in wanted:
        if name.lower() not in known:
            hint = suggest(name, known) or f'; it takes {", ".join(known)}'
            raise UsageError(f'this model takes no method {name or "without a name"}{hint}')
    if not wanted:
        raise UsageError('give at least one method')
    return list(dict.fromkeys(known[name.lower()] for name in wanted))


@dataclass(frozen=True)
class _Task:
    network: Network
    samples: Samples
    target: Target
    batch_size: int
    timing: Timing
    state: _State
    progress: Progress

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.samples.images.shape[1:])

    def judge(self, start: int) -> Judge:
        """Return the judge on one half of the images."""
        return Judge(self.network.model, self.samples.part(start, 2), self.batch_size)


def _result(task: _Task, methods: Sequence[str]) -> dict[str, Any]:
    """Time blocks, find costs, search, compare on held-out images, and measure."""
    known = Schedules(transformer_of(task.network.model).network, image_grid(task.network, task.shape))
    bar = task.progress.add_task('timing blocks', total=turns(task.timing) * len(methods))
    done = partial(task.progress.advance, bar)
    for method in methods:
        given = (task.network, task.shape, task.batch_size, method, task.timing)
        times = task.state.once('times', method, measure_block_times, *given, done=done)
        known.times[method] = BlockTimes(**times)
    methods, searched = known.reachable(methods, task.target), task.judge(0)
    _find_costs(known, searched, methods, task.state, task.progress)
    task.progress.add_task('searching and comparing', total=None)
    fronts = {method: known.plans(method, task.target.kind == 'macs') for method in methods}
    best: dict[str, Any] = {method: within(fronts[method], known.limit(method, task.target)) for method in methods}
    spoilt = {m: searched.of_options(m, dict(r=list(best[m].amounts)))['divergence'] for m in methods}
    method = min(spoilt, key=lambda name: spoilt[name])
    tuned = known.describe(method, dict(r=list(best[method].amounts)))
    points = [
        known.describe(name, dict(r=list(plan.amounts)))
        for name in methods
        for plan in _spread(fronts[name], best[name])
    ]
    result = _compare(task, tuned, known.constant(method, tuned['predicted_ms']), points, known.times[method].dense)
    halves = {name: len(task.samples.part(i, 2).images) for i, name in enumerate(('searched', 'held_out'))}
    return dict(**result, divergence_of_methods=spoilt, images=halves)


def _compare(task: _Task, tuned: dict, constant: dict, points: list[dict], seconds: float) -> dict[str, Any]:
    """Judge schedules on the held-out images, and measure the first two beside the dense network."""
    held_out = task.judge(1)
    for one in (tuned, constant, *points):
        one.update(held_out.of_options(one['method'], one['options']))
    dense = dict(predicted_ms=1000 * seconds, **held_out.of_logits(held_out.dense))
    setting = _measure(task, (dense, tuned, constant))
    ours, theirs = tuned['agreement'], constant['agreement']
    verdict = 'beats' if ours > theirs else 'equals' if ours == theirs else 'loses to'
    return dict(**tuned, verdict=verdict, dense=dense, constant=constant, pareto=points, environment=setting)


def _find_costs(known: Schedules, judge: Judge, methods: Sequence[str], state: _State, progress: Progress) -> None:
    """Find what each layer costs when it alone reduces."""
    layers = known.network.num_layers
    task = progress.add_task('costs of layers', total=layers * len(methods))
    for method in methods:
        known.costs[method] = []
        for layer in range(layers):
            costs = state.once('costs', f'{method} {layer}', judge.of_layer, method, layer, known.amounts)
            known.costs[method].append(costs)
            progress.advance(task)


def _spread(plans: Sequence[Plan], fastest: Plan) -> list[Plan]:
    """Return some of the plans, from one of them to that which reduces least."""
    plans = [plan for plan in plans if plan.resource >= fastest.resource]
    places = {round(i * (len(plans) - 1) / (_POINTS - 1)) for i in range(_POINTS)}
    return [plans[i] for i in sorted(places)]


def _measure(task: _Task, described: Sequence[dict]) -> dict[str, Any]:
    """Measure the dense network and reduced ones in turn, add what comes out, and return the environment.

    Predictions are shares of the dense network's time: by what that differs now, the machine has changed in between.
    """
    networks = [task.network]
    for one in described[1:]:
        reduced = reduce_(copy.deepcopy(task.network.model), one['method'], **one['options'])
        networks.append(replace(task.network, label=f'{task.network.label}+{one["method"]}', model=reduced))
    report = benchmark(networks, task.timing, 0, (task.batch_size,), task.shape[1:], progress=task.progress)
    measured = [1000 * row['seconds']['median'] for row in report['results']]
    changed = measured[0] / described[0]['predicted_ms']
    for i, (one, row) in enumerate(zip(described, report['results'], strict=True)):
        difference = measured[i] / one['predicted_ms'] / (changed if i else 1) - 1
        one.update(
            measured_ms=measured[i],
            measured_times_as_fast=row['ratio']['median'],
            difference=difference,
            as_predicted=abs(difference) <= _WITHIN,
        )
    return report['environment']
