"""Benchmark networks side by side: their times in turn, memory, multiply-adds and parameters."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from rich.progress import Progress

from ..errors import UsageError
from ..models.reduction import reduction_of
from .complexity import count
from .inputs import Inputs
from .networks import Network, input_shape
from .profile import profile_parts
from .report import environment
from .timing import Job, Timing, interleave, summarise


def benchmark(
    networks: Sequence[Network],
    timing: Timing,
    baseline: int = 0,
    batch_sizes: Sequence[int] = (1, 8),
    shape: Sequence[int] | None = None,
    profile: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time networks in turn, on the same random inputs.

    Args:
        networks: of :func:`.load_network`; they are moved to the device.
        timing: how they are run.
        baseline: which of them the others are compared with; in several back ends each with that in its own.
        batch_sizes: inputs of a run.
        shape: of one input as of :func:`.input_shape`, by default that of the first network.
        profile: whether the parts of each network are timed after that, in inference that is not compiled.
        progress: where progress is shown.

    Returns:
        ``environment``, see :func:`.environment`, and ``results``: for each batch size and network a dict of its
        ``seconds``, ``images_per_second`` and ``ratio`` (to the baseline, in the same round), each with
        median and quartiles, ``rounds`` (seconds of a run), ``runs_a_round``, ``peak_memory``, ``reduction`` (of
        tokens, as its ``mmstvit.reduce_`` has it) and :func:`costs`. In several back ends also ``backend`` and
        ``ratio_to_eager``, to the baseline as it is written.

    Raises:
        mmstvit.errors.UsageError: a setting that does not fit a network or the others.
    """
    if min(batch_sizes) < 1:
        raise UsageError('batch sizes must be at least 1')
    if profile and (timing.train_step or timing.compile):
        raise UsageError('a profile is of inference as it is written: leave --train-step and --compile out')
    part = timing.part or default_part(networks, timing.train_step)
    timing = replace(timing, part=part)
    for network in networks:
        if timing.part == 'backbone' and not network.has_backbone:
            raise UsageError(f'{network.label} has no backbone that runs alone: give --part model')
        network.model.to(timing.device)
    # The same for all; it raises where one of them takes clips and another images.
    shape = [input_shape(network, shape or networks[0].size) for network in networks][0]
    counts = [costs(network, shape, part, timing.device) for network in networks]
    results = []
    for batch in batch_sizes:
        rows = measure(networks, baseline, shape, batch, timing, progress or Progress(disable=True))
        for network, row, cost in zip(networks, rows, counts, strict=True):
            # The parts of an exported file are not those of a module, and those of a compiled one are fused.
            if profile and not network.exported and not network.compiled:
                row['parts'] = profile_parts(Job(network, shape, batch, timing), timing.rounds)
            results.append({**row, **cost})
    said = environment(timing, shape, networks[baseline].label)
    runtimes = dict.fromkeys(network.runtime for network in networks if network.runtime)
    return dict(environment=said | ({'runtimes': ', '.join(runtimes)} if runtimes else {}), results=results)


def default_part(networks: Sequence[Network], train_step: bool = False) -> str:
    """Return what is run where no part is named: of detectors the backbone, unless they are trained."""
    detectors = any(network.toolbox == 'mmdet' for network in networks)
    return 'backbone' if detectors and not train_step else 'model'


def measure(
    networks: Sequence[Network],
    baseline: int,
    shape: Sequence[int],
    batch: int,
    timing: Timing,
    progress: Progress,
    look: Callable[..., dict] = lambda job: {},
) -> list[dict]:
    """Time all networks at one batch size; one entry each, ready for JSON but for the costs.

    Args:
        networks, baseline, timing, progress: of :func:`benchmark`; the networks are on the device, and the ``part`` of
            the timing is not ``None``.
        shape: (channels, ...) of an input.
        batch: inputs of a run.
        look: takes each network's job before it is timed, and gives what else its entry has.
    """
    task = progress.add_task(f'batch {batch}: warming up', total=len(networks) * (timing.rounds + 1))
    jobs: list[Job] = []
    rows: list[dict] = []
    for network in networks:
        job = Job(network, shape, batch, timing)
        jobs.append(job)
        of = reduction_of(network.model)
        reduction = of and {name: getattr(of, name) for name in ('method', 'options', 'tokens', 'share')}
        row: dict[str, Any] = dict(
            network=network.label, toolbox=network.toolbox, reduction=reduction, batch_size=batch
        )
        rows.append(row | dict(runs_a_round=job.times_a_round(), peak_memory=job.memory(), **look(job)))
        progress.advance(task)
    progress.update(task, description=f'batch {batch}: timing')
    times = [row['runs_a_round'] for row in rows]
    seconds = interleave([job.seconds for job in jobs], times, timing.rounds, lambda: progress.advance(task))
    for job in jobs:
        job.close()
    to_own = summarise(seconds, batch, [_baseline_of(network, networks, baseline) for network in networks])
    to_eager = summarise(seconds, batch, baseline)
    for network, row, rounds, own, eager in zip(networks, rows, seconds, to_own, to_eager, strict=True):
        row.update(rounds=rounds, **{name: asdict(spread) for name, spread in own.items()})
        if network.backend:
            row.update(backend=network.backend, ratio_to_eager=asdict(eager['ratio']))
    return rows


def _baseline_of(network: Network, networks: Sequence[Network], baseline: int) -> int:
    """Return which network one is compared with: the baseline in its own back end."""
    key = networks[baseline].label, network.backend
    return next((i for i, other in enumerate(networks) if (other.label, other.backend) == key), baseline)


def costs(
    network: Network, shape: Sequence[int], part: str = 'model', device: str | torch.device = 'cpu'
) -> dict[str, Any]:
    """Return multiply-adds of a forward of one input, parameters and top-1 of what is timed; ``None`` where unknown.

    Args:
        network: whose.
        shape: (channels, ...) of the input.
        part: ``'model'`` or ``'backbone'``.
        device: where the network is.
    """
    if network.stated:
        multiply_adds, parameters = network.stated
        same_size = network.size == tuple(shape[1:])
        return dict(multiply_adds=multiply_adds if same_size else None, parameters=parameters, top1=None)
    with torch.no_grad():
        counted = count(Inputs(network, shape, 1, device).run, part, module=network.part(part))
    top1 = network.top1 if network.size == tuple(shape[1:]) else None  # it was measured at that size
    return dict(multiply_adds=counted.multiply_adds, parameters=counted.parameters, top1=top1)
