"""Find how many tokens each layer should remove for a network to be as fast as it must: ``tune``."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from ..errors import UsageError, as_usage_error, suggest
from ..layers.adapters import transformer_of
from ..measure.block_times import BlockTimes, image_grid, measure_blocks, measure_method
from ..measure.networks import Network, network_of
from ..measure.speed import benchmark
from ..measure.timing import Timing
from ..models import reduce_
from ..models.reduction import methods_for, reduction_of
from .configs import find_config, find_run
from .models import chosen_device, get_model
from .tuning_data import COST_IMAGES, Judge, Samples, load_samples, read_classifier_config
from .tuning_report import check_folder, write_report
from .tuning_schedules import Schedules
from .tuning_search import Plan, Target, within
from .tuning_state import State, settings_of

_NOT_BY_DEFAULT = ('Random', 'ToMeSD')  # a control, and one for maps, which keeps the number of tokens
_NEVER = ('GridPool', 'Expedite')  # where tokens lie in a layer depends on all layers before it
_POINTS = 4  # of the best method in the plot
_WITHIN = 0.05  # that predicted and measured time may differ by
_AGAIN = 2  # times that is searched again where what was measured is not what was asked for
_SPARE = 0.02  # share of the time that is asked for then beyond the target, which measuring again differs by
_SEARCHED = 64  # images that the methods are compared on, at the most
_PLOTTED = 64  # of the held-out images, that the plot is of


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

    Nothing is trained. The time of a block by its number of tokens is measured once, and what each method adds to it.
    What the reduction of a layer costs is the KL divergence of the predictions from the dense network's when that layer
    alone reduces. Dynamic programming finds the schedule of each method with the least sum of costs; it assumes that
    costs of layers add up, and that a layer's depends on the share of its tokens that it removes, as found with all
    tokens before it. The methods' schedules are then compared as whole networks. All this sees half of the images, at
    the most 64, and the costs of layers 16 of them. On the other half the best is compared with the method's one number
    for all layers at about the same predicted time. Where the best is measured to be too slow, or faster than it must,
    the prediction is corrected by that and a schedule searched again, twice at the most.

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
        UsageError: a target that is none or out of reach, data without images, a model that cannot be reduced, a folder
            that has another README.md or the like.
    """
    goal, progress = Target.parse(target), progress or Progress(disable=True)
    if batch_size < 1 or images < 2:
        raise UsageError('the batch size must be at least 1, and the number of images at least 2')
    timing = timing or Timing(chosen_device(None), rounds=7, min_time=0.1)
    if (timing.part, timing.dtype, timing.compile, timing.train_step) != ('model', 'float32', False, False):
        raise UsageError('whole networks are tuned, in float32, as they are: leave dtype, part and the like out')
    name, checkpoint = find_run(str(model), None if checkpoint is None else str(checkpoint))
    path, cfg = find_config(name), read_classifier_config(name)
    out = Path(out or Path('work_dirs') / path.stem / 'tune')
    check_folder(out)
    built = get_model(cfg, checkpoint or True, timing.device, trust_checkpoint)
    methods = _methods(built, methods)
    samples = load_samples(built, str(data), images)
    out.mkdir(parents=True, exist_ok=True)
    state = State(out / 'state.json', settings_of(cfg, checkpoint, str(data), samples, batch_size, timing))
    task = _Task(network_of(cfg, path.stem, built), samples, goal, batch_size, timing, state, progress)
    result = state.once('results', f'{goal} {",".join(methods)}', _result, task, methods)
    result = dict(
        model=str(model),
        checkpoint=checkpoint,
        data=str(data),
        target=str(goal),
        methods=methods,
        batch_size=batch_size,
        most_images=images,
        device=str(timing.device),
        out=str(out),
        **result,
    )
    write_report(out, result, path)
    return result


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
    state: State
    progress: Progress

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.samples.images.shape[1:])

    def judge(self, start: int, most: int | None = None) -> Judge:
        """Return the judge on one half of the images, ``most`` of them where it is given."""
        return Judge(self.network.model, self.samples.part(start, 2, most), self.batch_size)

    def once(self, part: str, name: str, make: Callable, *args: Any, **kwargs: Any) -> Any:
        """Return what the state has, see there, and advance the progress of the part."""
        result = self.state.once(part, name, make, *args, **kwargs)
        self.progress.advance(self.progress.tasks[-1].id)
        return result


def _result(task: _Task, methods: Sequence[str]) -> dict[str, Any]:
    """Time blocks, find costs, search, measure, and compare on held-out images."""
    schedules = Schedules(transformer_of(task.network.model).network, image_grid(task.network, task.shape))
    _find_times(schedules, methods, task)
    methods, searched = schedules.reachable(methods, task.target), task.judge(0, _SEARCHED)
    _find_costs(schedules, searched, methods, task)
    task.progress.add_task('searching and comparing', total=None)
    best: dict[str, Any] = {method: _best(schedules, method, task.target) for method in methods}
    spoilt = {m: searched.of_options(m, _options(best[m]))['divergence'] for m in methods}
    method = min(spoilt, key=lambda name: spoilt[name])
    result = _measured(schedules, method, best[method], task)
    held_out, tuned, constant = task.judge(1), result, result['constant']
    points = [schedules.describe(method, tuned['options'])]
    points += [schedules.describe(method, _options(plan)) for plan in _spread(schedules, method, task.target)]
    points += [schedules.describe(name, _options(best[name])) for name in methods if name != method]
    for one in (tuned, constant):
        one.update(held_out.of_options(one['method'], one['options']))
    for one in points:
        one.update(held_out.of_options(one['method'], one['options'], _PLOTTED))
    result['dense'].update(held_out.of_logits(held_out.dense))
    ours, theirs = tuned['agreement'], constant['agreement']
    verdict = 'beats' if ours > theirs else 'equals' if ours == theirs else 'loses to'
    numbers = [len(judge.samples.images) for judge in (searched, held_out)]
    names = ('costs', 'searched', 'held_out', 'plotted')
    images = dict(zip(names, (min(COST_IMAGES, numbers[0]), *numbers, min(_PLOTTED, numbers[1]))))
    return dict(**result, verdict=verdict, pareto=points, divergence_of_methods=spoilt, images=images)


def _best(schedules: Schedules, method: str, target: Target, spare: float = 0.0) -> Plan | None:
    """Return the best schedule of a method for a target, ``None`` where it cannot be kept."""
    return within(schedules.plans(method, target.kind == 'macs'), schedules.limit(method, target, spare))


def _options(plan: Plan) -> dict[str, Any]:
    return dict(r=list(plan.amounts))


def _find_times(schedules: Schedules, methods: Sequence[str], task: _Task) -> None:
    """Time the blocks, and what each method adds to them."""
    task.progress.add_task('timing blocks', total=1 + len(methods))
    workload = (task.network, task.shape, task.batch_size)
    table = BlockTimes(**task.once('times', 'blocks', measure_blocks, *workload, task.timing))
    for method in methods:
        times = task.once('times', method, measure_method, *workload, method, table, task.timing)
        schedules.times[method] = BlockTimes(**times)


def _find_costs(schedules: Schedules, judge: Judge, methods: Sequence[str], task: _Task) -> None:
    """Find what each layer costs when it alone reduces."""
    layers = range(schedules.network.num_layers)
    task.progress.add_task('costs of layers', total=len(layers) * len(methods))
    for layer in layers:
        for method in methods:
            costs = task.once('costs', f'{method} {layer}', judge.of_layer, method, layer, schedules.amounts)
            schedules.costs.setdefault(method, []).append(costs)


def _spread(schedules: Schedules, method: str, target: Target) -> list[Plan]:
    """Return some schedules of a method that reduce less than the best for a target, and that do reduce."""
    limit = schedules.limit(method, target)
    plans = [p for p in schedules.plans(method, target.kind == 'macs') if p.resource > limit and any(p.amounts)]
    places = {round(i * (len(plans) - 1) / _POINTS) for i in range(1, _POINTS)} if plans else ()
    return [plans[i] for i in sorted(places)]


def _measured(schedules: Schedules, method: str, plan: Plan | None, task: _Task) -> dict[str, Any]:
    """Describe the best schedule that was measured to keep the target, with those that were tried.

    Where what was measured is not what was asked for, the times are corrected by it and the schedule is searched again.
    Of those that keep the target the one that reduces least is taken, and where none does the fastest.

    Args:
        schedules: what the schedules are searched by.
        method: of the schedule.
        plan: the first schedule.
        task: what is asked for.
    """
    tried: list[dict[str, Any]] = []
    for turn in range(1 + _AGAIN):
        if turn:
            plan = _best(schedules, method, task.target, _SPARE)
        if plan is None or any(_options(plan) == one['options'] for one in tried):
            break
        tuned = schedules.describe(method, _options(plan))
        constant = schedules.constant(method, tuned['predicted_ms'])
        dense = dict(predicted_ms=1000 * schedules.times[method].dense)
        setting = _measure(task, (dense, tuned, constant))
        ratio = task.target.kept(tuned['measured_times_as_fast'], tuned['measured_ms'])
        tried.append(dict(**tuned, kept=ratio >= 1, constant=constant, dense=dense, environment=setting))
        if 1 <= ratio <= 1 + _WITHIN or task.target.kind == 'macs':
            break
        now = dense['measured_ms'] / 1000
        seconds = now / tuned['measured_times_as_fast']  # of the same rounds
        schedules.times[method] = schedules.times[method].corrected(seconds, tuned['predicted_ms'] / 1000, now)
    chosen = min(tried, key=lambda one: (not one['kept'], one['measured_times_as_fast'] * (1 if one['kept'] else -1)))
    names = ('options', 'predicted_ms', 'measured_ms', 'measured_times_as_fast', 'kept')
    return dict(**chosen, tried=[{name: one[name] for name in names} for one in tried])


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
