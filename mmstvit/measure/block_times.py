"""How long a transformer's blocks take by their number of tokens, and what a schedule of reductions takes by that."""

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..functional.windows import Size
from ..layers.adapters import transformer_of
from ..layers.steps import SelfAttention, Step, build_steps
from ..layers.steps.schedule import tokens_per_block
from ..layers.tokens import Tokens
from ..models import reduce_
from .networks import Network
from .timing import Job, Timing, interleave, runs_a_round, seconds_of

_SHARES = (0, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)  # of the tokens, where blocks are timed; at least one token
_STEP_SHARES = (1 / 8, 1 / 2, 1)  # where what a method adds to a block is
_STEP_BLOCKS = 3  # that it is timed in
_MOST_OFF = 2.0  # times that what a network saves may differ from what its blocks save

Timer = Callable[[Callable[[], Any], int], float]


@dataclass(frozen=True)
class BlockTimes:
    """Seconds of one block by its number of tokens, prefix tokens not counted, and of the network.

    The block alone is the same for all methods. What a method adds is told by ``sized``, ``first`` and ``further``,
    which stand for one that adds nothing until :func:`measure_method` has timed it.

    Attributes:
        layers: blocks of the network.
        count: tokens of an image before any reduction.
        tokens: numbers of tokens that were timed, ascending.
        plain: seconds of a block without reduction, one for each of ``tokens``.
        dense: seconds of the network as it is.
        stepped: seconds of the network run by steps that reduce nothing: other libraries compute their blocks in ways
            of their own.
        step_tokens: numbers of tokens at which the method was timed, ascending.
        sized: seconds that a block without reduction takes more on tokens that an earlier one has reduced, one for each
            of ``step_tokens``: to weigh by the patches that they stand for takes time.
        first: seconds that removing one token adds to a block, on such tokens.
        further: seconds that removing each further token adds; below 0 where the MLP saves more.
        scale: by which what blocks take less must be multiplied for what networks take less.
    """

    layers: int
    count: int
    tokens: list[int]
    plain: list[float]
    dense: float
    stepped: float
    step_tokens: Sequence[int] = (1,)
    sized: Sequence[float] = (0.0,)
    first: Sequence[float] = (0.0,)
    further: Sequence[float] = (0.0,)
    scale: float = 1.0

    def block(self, count: int, r: int) -> float:
        """Return the seconds of a block that ``count`` tokens enter and that removes ``r``.

        Between the numbers that were timed it is linear, in ``count`` and in ``r``.
        """
        tables = (self.sized, self.first, self.further)
        sized, first, further = (float(np.interp(count, self.step_tokens, seconds)) for seconds in tables)
        more = first + (r - 1) * further if r else sized
        if count == self.count:  # nothing was reduced before
            more -= sized
        return float(np.interp(count, self.tokens, self.plain)) + more

    def extra(self, count: int, r: int) -> float:
        """Return the seconds that a block adds to the network, in comparison with a step that reduces nothing.

        No block is taken to save more of its part of the network than one with the fewest tokens that were timed.
        """
        most = self.stepped / self.layers * (1 - min(self.plain[0] / self.plain[-1], 1.0))
        return max(self.scale * (self.block(count, r) - self.plain[-1]), -most)

    def network(self, counts: Sequence[int], amounts: Sequence[int]) -> float:
        """Return the seconds of a network.

        Args:
            counts: tokens that enter each block.
            amounts: tokens that each block removes.
        """
        return self.stepped + sum(self.extra(n, r) for n, r in zip(counts, amounts, strict=True))

    def corrected(self, seconds: float, predicted: float, dense: float | None = None) -> 'BlockTimes':
        """Return the table by which a network takes what it was measured to take.

        Blocks in a row do not save what they save alone: what is between them, and what the caches hold, differ.

        Args:
            seconds: that were measured.
            predicted: by this table.
            dense: seconds of the dense network that were measured beside it, where the machine may have changed.
        """
        changed = 1.0 if dense is None else dense / self.dense
        stepped, saved = self.stepped * changed, (self.stepped - predicted) * changed
        off = (stepped - seconds) / saved if saved else 1.0
        off = min(max(off, 1 / _MOST_OFF), _MOST_OFF)
        return replace(self, dense=self.dense * changed, stepped=stepped, scale=self.scale * changed * off)


class Recorder(SelfAttention):
    """Self-attention that keeps the block and the tokens that it was called with."""

    def __init__(self, calls: list[tuple[Any, Tokens]]) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, block: Any, tokens: Tokens) -> Tokens:
        self.calls.append((block, tokens))
        return super().forward(block, tokens)


def steps_of(method: str, amounts: Sequence[int], network: Any) -> list[Step]:
    """Return the steps of a method that removes so many tokens in each block."""
    return build_steps(dict(type=method, r=list(amounts)), network)


def recorded_blocks(model: torch.nn.Module, run: Callable[[], Any]) -> tuple[list[Any], Tokens]:
    """Run a model once, and return its blocks as steps call them, and the tokens that enter the first."""
    transformer, calls = transformer_of(model), list[tuple[Any, Tokens]]()
    transformer.run([Recorder(calls) for _ in range(transformer.network.num_layers)])
    try:
        run()
    finally:
        transformer.restore()
    return [block for block, _ in calls], calls[0][1]


def image_grid(network: Network, shape: Sequence[int]) -> Size:
    """Return the grid of image tokens of a network on inputs of a shape (channels, ...)."""
    device = next(network.model.parameters()).device
    _, tokens = recorded_blocks(network.model, Job(network, shape, 1, Timing(device)).run)
    return tuple(tokens.layout.grid)


def measure_blocks(
    network: Network, shape: Sequence[int], batch: int, timing: Timing, timer: Timer | None = None
) -> BlockTimes:
    """Time the network, and its blocks without reduction at a few numbers of tokens.

    Blocks of one kind are run one after the other, each on the same tokens, so that weights come from memory as in the
    network.

    Args:
        network: with a model that :func:`mmstvit.reduce_` takes, not reduced, on the device.
        shape: (channels, ...) of an input.
        batch: inputs of a run.
        timing: how it is run.
        timer: takes what is run and how often, and gives the seconds of one run.
    """
    job = Job(network, shape, batch, timing)
    blocks, tokens = recorded_blocks(network.model, job.run)
    layers, count = len(blocks), math.prod(tokens.layout.grid)
    by_steps, steps = copy.deepcopy(network.model), [SelfAttention() for _ in blocks]
    transformer_of(by_steps).run(steps)
    points = _numbers(count, _SHARES)
    runs = [job.run, Job(replace(network, model=by_steps), shape, batch, timing).run]
    runs += [_run_of(steps, blocks, _first_of(tokens, n)) for n in points]
    times = _in_turn(runs, timing, timing.rounds, timer)
    dense = float(np.median(times[0]))
    _, stepped, *plain = (dense * _ratios(times, times[0])).tolist()
    return BlockTimes(layers, count, points, [seconds / layers for seconds in plain], dense, stepped)


def measure_method(
    network: Network,
    shape: Sequence[int],
    batch: int,
    method: str,
    table: BlockTimes,
    timing: Timing,
    timer: Timer | None = None,
) -> BlockTimes:
    """Time what a method adds to a few blocks, and one reduced network, which corrects what the blocks tell.

    Args:
        network, shape, batch, timing, timer: as of :func:`measure_blocks`; half of the rounds are run.
        method: a name of ``METHODS``.
        table: of :func:`measure_blocks`.
    """
    job, plain = Job(network, shape, batch, timing), transformer_of(network.model).network
    blocks, tokens = recorded_blocks(network.model, job.run)
    chosen = sorted({round(i * (len(blocks) - 1) / (_STEP_BLOCKS - 1)) for i in range(_STEP_BLOCKS)})
    amounts = [max(1, table.count // (2 * len(blocks)))] * len(blocks)
    reduced = reduce_(copy.deepcopy(network.model), method, r=amounts)
    with torch.inference_mode():
        left = steps_of(method, amounts, plain)[0](blocks[0], tokens)
    sizes = None if left.size is None else torch.ones_like(tokens.x[..., :1])
    later = tokens._replace(size=sizes, proportional=left.proportional)

    def run(r: int, tokens: Tokens) -> Callable[[], None]:
        steps = steps_of(method, [r] * len(blocks), plain)
        return _run_of([steps[i] for i in chosen], [blocks[i] for i in chosen], tokens)

    points = _numbers(table.count, _STEP_SHARES)
    halves = [max(1, n // 2) for n in points]
    runs = [job.run, Job(replace(network, model=reduced), shape, batch, timing).run, run(0, tokens)]
    for removed in ([1] * len(points), halves, *([] if sizes is None else [[0] * len(points)])):
        runs += [run(r, _first_of(later, n)) for n, r in zip(points, removed)]
    times = _in_turn(runs, timing, max(1, timing.rounds // 2), timer)
    base = np.interp(points, table.tokens, table.plain)
    own = table.plain[-1] * _ratios(times[3:], times[2]).reshape(-1, len(points))
    light, heavy, *sized = own - base
    further = (heavy - light) / np.maximum(np.array(halves) - 1, 1)
    lists = dict(first=light, further=further, sized=sized[0] if sized else 0 * light)
    with_steps = replace(table, step_tokens=points, **{name: seconds.tolist() for name, seconds in lists.items()})
    entering = [table.count, *tokens_per_block(plain, steps_of(method, amounts, plain), tokens.layout.grid)[:-1]]
    return with_steps.corrected(table.dense * _ratios(times[1:2], times[0])[0], with_steps.network(entering, amounts))


def _in_turn(runs: Sequence[Callable], timing: Timing, rounds: int, timer: Timer | None) -> list[list[float]]:
    """Time what is run in turn, and return the seconds of each, one number a round."""
    timer = timer or functools.partial(seconds_of, device=torch.device(timing.device))
    timers = [functools.partial(timer, run) for run in runs]
    return interleave(timers, [runs_a_round(seconds, timing.min_time, warm_up=1) for seconds in timers], rounds)


def _ratios(times: Sequence[Sequence[float]], base: Sequence[float]) -> np.ndarray:
    """Return times in those of a base, the least of all rounds each: what else a machine does only adds to them."""
    return np.min(times, axis=1) / np.min(base)


def _numbers(count: int, shares: Sequence[float]) -> list[int]:
    """Return shares of a number of tokens, ascending, one at the least."""
    return sorted({max(1, round(share * count)) for share in shares})


def _first_of(tokens: Tokens, count: int) -> Tokens:
    """Return the first tokens of an image, as if the others had been removed."""
    stop = tokens.layout.num_prefix + count
    size = None if tokens.size is None else tokens.size[:, :stop]
    return tokens._replace(x=tokens.x[:, :stop].contiguous(), size=size)


def _run_of(steps: Sequence[Step], blocks: Sequence[Any], tokens: Tokens) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            for step, block in zip(steps, blocks, strict=True):
                step(block, tokens)

    return run
