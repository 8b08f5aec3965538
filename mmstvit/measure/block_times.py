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
from .timing import Job, Spread, Timing, interleave, runs_a_round, seconds_of

_SHARES = (1, 3 / 4, 1 / 2, 1 / 4, 1 / 8)  # of the tokens, where blocks are timed


@dataclass(frozen=True)
class BlockTimes:
    """Seconds of one block by its number of tokens, prefix tokens not counted, and of the rest of the network.

    Attributes:
        layers: blocks of the network.
        count: tokens of an image before any reduction.
        tokens: numbers of tokens that were timed, ascending.
        plain: seconds of a block without reduction, one for each of ``tokens``.
        light: seconds of a block that removes one token.
        heavy: seconds of a block that removes half of its tokens.
        dense: seconds of the network as it is.
        stepped: seconds of the network run by steps that reduce nothing: other libraries compute their blocks in ways
            of their own.
        scale: by which what blocks take less must be multiplied for what networks take less.
        each: seconds that the network takes longer for each block that reduces than its blocks tell, e.g. to give
            patches the values of their tokens at the end; may be negative.
    """

    layers: int
    count: int
    tokens: list[int]
    plain: list[float]
    light: list[float]
    heavy: list[float]
    dense: float
    stepped: float
    scale: float = 1.0
    each: float = 0.0

    def block(self, count: int, r: int) -> float:
        """Return the seconds of a block that ``count`` tokens enter and that removes ``r``.

        Between the numbers that were timed it is linear, in ``count`` and in ``r``.
        """
        if r == 0:
            return float(np.interp(count, self.tokens, self.plain))
        light, heavy = (float(np.interp(count, self.tokens, seconds)) for seconds in (self.light, self.heavy))
        half = float(np.interp(count, self.tokens, [n // 2 for n in self.tokens]))  # as the times are: of odd ones less
        return light + (heavy - light) * (r - 1) / max(half - 1, 1)

    def extra(self, count: int, r: int) -> float:
        """Return the seconds that a block adds to the network, in comparison with a step that reduces nothing.

        No block is taken to save more of its part of the network than one with the fewest tokens that were timed.
        """
        most = self.stepped / self.layers * (1 - min(self.plain[0] / self.plain[-1], 1.0))
        seconds = self.scale * (self.block(count, r) - self.plain[-1]) + (self.each if r else 0.0)
        return max(seconds, -most)

    def network(self, counts: Sequence[int], amounts: Sequence[int]) -> float:
        """Return the seconds of a network.

        Args:
            counts: tokens that enter each block.
            amounts: tokens that each block removes.
        """
        return self.stepped + sum(self.extra(n, r) for n, r in zip(counts, amounts, strict=True))


class _Recorder(SelfAttention):
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


def recorded_blocks(job: Job) -> tuple[list[Any], Tokens]:
    """Run a network once, and return its blocks as steps call them, and the tokens that enter the first."""
    transformer, calls = transformer_of(job.network.model), list[Any]()
    transformer.run([_Recorder(calls) for _ in range(transformer.network.num_layers)])
    try:
        job.run()
    finally:
        transformer.restore()
    return [block for block, _ in calls], calls[0][1]


def image_grid(network: Network, shape: Sequence[int]) -> Size:
    """Return the grid of image tokens of a network on inputs of a shape (channels, ...)."""
    device = next(network.model.parameters()).device
    _, tokens = recorded_blocks(Job(network, shape, 1, Timing(device)))
    return tuple(tokens.layout.grid)


def measure_block_times(
    network: Network,
    shape: Sequence[int],
    batch: int,
    method: str,
    timing: Timing,
    timer: Callable[[Callable[[], Any], int], float] | None = None,
    done: Callable[[], Any] = lambda: None,
) -> BlockTimes:
    """Time the blocks of a network at a few numbers of tokens, and the network with and without reduction.

    All have their turn in each round, forwards in one and backwards in the next; medians are taken of the ratios to the
    network without reduction in the same round. Blocks of one kind are run one after the other, each on the same
    tokens, so that weights come from memory as in the network. Two reduced networks, a little in each block and by half
    in the first, correct what the blocks tell.

    Args:
        network: with a model that :func:`mmstvit.reduce_` takes, not reduced, on the device.
        shape: (channels, ...) of an input.
        batch: inputs of a run.
        method: a name of ``METHODS``.
        timing: how it is run.
        timer: takes what is run and how often, and gives the seconds of one run.
        done: called after each turn.
    """
    timer = timer or functools.partial(seconds_of, device=torch.device(timing.device))
    job, plain = Job(network, shape, batch, timing), transformer_of(network.model).network
    blocks, first = recorded_blocks(job)
    layers, grid = len(blocks), tuple(first.layout.grid)
    count = math.prod(grid)
    known = [[max(1, count // (2 * layers))] * layers, [max(1, count // 2)] + [0] * (layers - 1)]
    models = [network.model, copy.deepcopy(network.model)]
    transformer_of(models[1]).run([SelfAttention() for _ in range(layers)])
    models += [reduce_(copy.deepcopy(network.model), method, r=amounts) for amounts in known]
    runs = [Job(replace(network, model=model), shape, batch, timing).run for model in models]
    points = _tokens_by_number(functools.partial(steps_of, method, network=plain), layers, blocks[0], first)
    for n, tokens in points.items():
        for r in (0, 1, max(1, n // 2)):
            runs.append(_run_of(steps_of(method, [r] * layers, plain), blocks, tokens))
    timers = [functools.partial(timer, run) for run in runs]
    times = [runs_a_round(seconds, timing.min_time) for seconds in timers]
    rounds = interleave(timers, times, timing.rounds, done)
    dense = Spread.of(rounds[0]).median
    ratios = [Spread.of([t / base for t, base in zip(own, rounds[0], strict=True)]).median for own in rounds]
    _, stepped, *reduced = (dense * ratio for ratio in ratios[: len(models)])
    of_block = [dense * ratio / layers for ratio in ratios[len(models) :]]
    table = BlockTimes(layers, count, list(points), of_block[0::3], of_block[1::3], of_block[2::3], dense, stepped)
    entering = [[count, *tokens_per_block(plain, steps_of(method, amounts, plain), grid)[:-1]] for amounts in known]
    return _corrected(table, entering, known, reduced)


def _corrected(
    table: BlockTimes, entering: Sequence[list[int]], amounts: Sequence[list[int]], seconds: Sequence[float]
) -> BlockTimes:
    """Choose ``scale`` and ``each`` so that the seconds of known networks are predicted, by least squares."""
    off, left = [], []
    for counts, own, taken in zip(entering, amounts, seconds, strict=True):
        predicted = table.network(counts, own)
        # In shares of the whole, so that both are numbers of the same size.
        off.append([predicted / table.stepped - 1, sum(r > 0 for r in own)])
        left.append((taken - predicted) / table.stepped)
    (scale, each), *_ = np.linalg.lstsq(np.array(off), np.array(left), rcond=0.01)
    return replace(table, scale=1 + float(scale), each=float(each) * table.stepped)


def turns(timing: Timing) -> int:
    """Return how often :func:`measure_block_times` calls ``done``."""
    return timing.rounds * (4 + 3 * (1 + len(_SHARES)))


def _run_of(steps: Sequence[Step], blocks: Sequence[Any], tokens: Tokens) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            for step, block in zip(steps, blocks, strict=True):
                step(block, tokens)

    return run


def _tokens_by_number(
    make: Callable[[list[int]], list[Step]], layers: int, block: Any, first: Tokens
) -> dict[int, Tokens]:
    """Return tokens that the method has left, by their number; those of all patches as they are.

    One less than all is among the numbers: tokens that stand for several patches can take longer in attention.
    """
    grid, prefix = first.layout.grid, first.layout.num_prefix
    count = first.x.shape[1] - prefix
    found = {count: first}
    for wanted in (count - 1, *(round(share * count) for share in _SHARES[1:])):
        tokens, n = first, count
        while n > max(wanted, 1):
            # The first that removes something: EViT's fused token takes the place of one.
            tries = (make([min(n - wanted + more, max(1, n // 2))] * layers)[0] for more in (0, 1))
            step = next((step for step in tries if step.counts(n, grid).after < n), None)
            if step is None:
                break
            with torch.inference_mode():
                tokens = step(block, tokens)
            n = tokens.x.shape[1] - prefix
        found.setdefault(n, tokens)
    return dict(sorted(found.items()))
