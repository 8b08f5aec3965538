"""Schedules of a network by its methods: what they may be, what they take, and how one number for all layers does."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UsageError
from ..layers.steps import SelfAttention, build_steps
from ..layers.steps.base import Network, ReducingStep
from ..layers.steps.schedule import block_multiply_adds, multiply_adds, tokens_per_block
from ..measure.block_times import BlockTimes, steps_of
from .tuning_search import Choice, Plan, Target, front

SHARES = (1 / 8, 1 / 2)  # of its tokens, that a layer removes when its cost is found
_FINEST = 32  # a layer removes multiples of this part of all tokens
# Among schedules of about the same cost, that of the least sum of squared shares: it reduces least, and evenly.
_TIE = 1e-3  # what removing all tokens adds to a layer's cost, in the largest cost of a layer
_NOISE = 1e-6  # and in nats


@dataclass
class Schedules:
    """What is known of a network.

    Attributes:
        network: its sizes.
        grid: image tokens along each axis.
        times: of each method, of its blocks.
        costs: of each method, for each layer one at each of ``SHARES``.
    """

    network: Network
    grid: tuple[int, ...]
    times: dict[str, BlockTimes] = field(default_factory=dict)
    costs: dict[str, list[list[float]]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Tokens of an image before any reduction."""
        return math.prod(self.grid)

    @property
    def amounts(self) -> list[int]:
        """Tokens that ``SHARES`` of all are."""
        return [max(1, round(share * self.count)) for share in SHARES]

    def choices(self, method: str, by_macs: bool = False) -> Callable[[int, int], Iterable[Choice]]:
        """Return what each layer can do; costs that are not known yet are 0.

        A little is added to costs so that of schedules that cost the same the one is found that reduces least, and
        evenly.

        Args:
            method: a name of ``METHODS``.
            by_macs: whether multiply-adds are the resource, and not the seconds beyond those without reduction.
        """
        costs, layers = self.costs.get(method), self.network.num_layers
        tie = _NOISE + _TIE * max(map(max, costs)) if costs else 0.0
        finest, shares = max(1, self.count // _FINEST), [r / self.count for r in self.amounts]
        steps = {
            r: steps_of(method, [r] * layers, self.network) for r in (0, *range(finest, self.count // 2 + 1, finest))
        }

        def choose(layer: int, n: int) -> Iterable[Choice]:
            for r in (r for r in steps if r <= n // 2):
                counts = steps[r][layer].counts(n, self.grid)
                if r and set(counts) == {n}:
                    continue  # it has no effect
                resource = block_multiply_adds(self.network, counts) if by_macs else self.times[method].extra(n, r)
                cost = _cost(r / n, shares, costs[layer]) + tie * (r / n) ** 2 if costs else 0.0
                yield Choice(r, counts.after, resource, cost)

        return choose

    def plans(self, method: str, by_macs: bool = False) -> list[Plan]:
        """Return the front of a method's schedules, see :func:`.front`."""
        return front(self.network.num_layers, self.count, self.choices(method, by_macs))

    def describe(self, method: str, options: dict[str, Any]) -> dict[str, Any]:
        """Return a schedule by its options, the tokens that leave each block, and what it takes by what is known."""
        steps = build_steps(dict(type=method, **options), self.network)
        table, after = self.times[method], tokens_per_block(self.network, steps, self.grid)
        entering = [self.count, *after[:-1]]
        # A token that is fused of those that are removed does not count.
        kept = [step.kept(n, self.grid) if isinstance(step, ReducingStep) else n for step, n in zip(steps, entering)]
        seconds = table.network(entering, [n - k for n, k in zip(entering, kept)])
        return dict(
            method=method,
            options=options,
            tokens=after,
            multiply_adds=sum(multiply_adds(self.network, steps, self.grid)) / self.dense_multiply_adds,
            predicted_ms=1000 * seconds,
            predicted_times_as_fast=table.dense / seconds,
        )

    @functools.cached_property
    def dense_multiply_adds(self) -> int:
        """Those of all blocks without reduction."""
        steps = [SelfAttention() for _ in range(self.network.num_layers)]
        return sum(multiply_adds(self.network, steps, self.grid))

    def limit(self, method: str, target: Target, spare: float = 0.0) -> float:
        """Return how much of the resource of :meth:`choices` a schedule may take.

        Args:
            method: a name of ``METHODS``.
            target: what is asked for.
            spare: share of the time by which it shall be faster than that.

        Raises:
            UsageError: the network as it is takes no more.
        """
        if target.kind == 'macs':
            return target.value * self.dense_multiply_adds
        dense = self.times[method].dense
        seconds = dense / target.value if target.kind == 'x' else target.value / 1000
        if seconds >= dense:
            raise UsageError(f'target {target}: the network as it is takes {1000 * dense:.4g} ms: give a shorter time')
        return seconds / (1 + spare) - self.times[method].stepped

    def reachable(self, methods: Sequence[str], target: Target) -> list[str]:
        """Return the methods that can keep a target at all.

        Raises:
            UsageError: none can.
        """
        by_macs = target.kind == 'macs'
        least = {method: min(plan.resource for plan in self.plans(method, by_macs)) for method in methods}
        feasible = [method for method in methods if least[method] <= self.limit(method, target)]
        if not feasible:
            method = min(least, key=lambda name: least[name])
            dense, seconds = self.times[method].dense, self.times[method].stepped + least[method]
            least_macs = f'{least[method] / self.dense_multiply_adds:.3g} of the multiply-adds'
            best = least_macs if by_macs else f'{1000 * seconds:.4g} ms, {dense / seconds:.3g}x'
            raise UsageError(f'target {target} is out of reach: the least is {best}, by {method}')
        return feasible

    def constant(self, method: str, milliseconds: float) -> dict[str, Any]:
        """Describe the method's schedule of one number whose predicted time is nearest to that.

        The number is ``r`` where the method by default reduces in all layers, and else ``keep_rate``.
        """
        everywhere = all(isinstance(step, ReducingStep) for step in build_steps(dict(type=method, r=1), self.network))
        values = range(1, self.count // 2 + 1) if everywhere else [i / 100 for i in range(2, 100)]
        described = [self.describe(method, {'r' if everywhere else 'keep_rate': value}) for value in values]
        return min(described, key=lambda one: abs(one['predicted_ms'] - milliseconds))


def _cost(share: float, shares: Sequence[float], costs: Sequence[float]) -> float:
    """Return the cost of removing a share of the tokens.

    It is a power of the share through the two costs that were found; where no power fits, linear from 0 through both.
    """
    (low, high), (less, more) = shares, costs
    if not (0 < less < more and low < high):
        return float(np.interp(share, [0.0, low, high], [0.0, less, more]))
    return less * (share / low) ** (math.log(more / less) / math.log(high / low))
