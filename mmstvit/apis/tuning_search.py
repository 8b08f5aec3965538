"""Search how many tokens each layer removes, for the least cost at a time."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import UsageError

_MOST_LABELS = 200  # that are kept of the ways to one number of tokens


class Choice(NamedTuple):
    """What one layer can do.

    Attributes:
        r: tokens to remove.
        after: tokens that leave it.
        resource: what it takes of what is limited, e.g. seconds.
        cost: what it spoils.
    """

    r: int
    after: int
    resource: float
    cost: float


class Plan(NamedTuple):
    """A schedule.

    Attributes:
        resource: what it takes.
        cost: what it spoils.
        amounts: tokens that each layer removes.
    """

    resource: float
    cost: float
    amounts: tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """How fast a network shall be.

    Attributes:
        kind: ``'x'``, times as fast as the dense network; ``'ms'``, milliseconds of a batch; ``'macs'``, the share of
            the multiply-adds of the dense network's blocks.
        value: the number.
    """

    kind: str
    value: float

    @classmethod
    def parse(cls, text: str) -> 'Target':
        """Read ``'2x'``, ``'10ms'`` or ``'0.5macs'``.

        Raises:
            UsageError: it is none, or cannot be.
        """
        match = re.fullmatch(r'\s*(\d+\.?\d*|\.\d+)\s*(x|ms|macs)\s*', str(text), re.IGNORECASE)
        if match is None:
            raise UsageError(f'target {text}: give 2x (times as fast), 10ms (of a batch) or 0.5macs (share of them)')
        value, kind = float(match[1]), match[2].lower()
        if kind == 'x' and not 1 < value < math.inf:
            raise UsageError(f'target {text}: it must be above 1x, the dense network')
        if kind == 'macs' and not 0 < value < 1:
            raise UsageError(f'target {text}: the share of multiply-adds must be above 0 and below 1')
        if kind == 'ms' and not 0 < value < math.inf:
            raise UsageError(f'target {text}: a time must be above 0')
        return cls(kind, value)

    def kept(self, times_as_fast: float, milliseconds: float) -> float:
        """Return how many times as fast a measured network is as it must; by multiply-adds 1, which are counted."""
        return dict(x=times_as_fast / self.value, ms=self.value / milliseconds, macs=1.0)[self.kind]

    def __str__(self) -> str:
        return f'{self.value:g}{self.kind}'


def front(layers: int, count: int, choices: Callable[[int, int], Iterable[Choice]]) -> list[Plan]:
    """Return the schedules that no other one beats in both resource and cost, ascending in resource.

    Dynamic programming over the layers with the number of tokens as the state. It assumes that resources and costs of
    layers add up, and that those of a layer depend on nothing but the number of tokens that enter it and the number
    that it removes. It is exact while there are at most 200 such ways to a state; of more, the cheapest in each of 200
    equal parts of the range of the resource is kept.

    Args:
        layers: their number.
        count: tokens that enter the first.
        choices: gives, for a layer and the tokens that enter it, what it can do.
    """
    states = {count: _Labels.start()}
    ways: list[dict[int, _Labels]] = []  # the states after each layer
    for layer in range(layers):
        reached: dict[int, list[_Labels]] = {}
        for n, labels in states.items():
            for choice in choices(layer, n):
                reached.setdefault(choice.after, []).append(labels.go_on(n, choice))
        states = {n: _Labels.joined(several).best() for n, several in reached.items()}
        ways.append(states)
    ends = [(labels, n, i) for n, labels in states.items() for i in range(len(labels.cost))]
    ends.sort(key=lambda end: (end[0].resource[end[2]], end[0].cost[end[2]]))
    plans: list[Plan] = []
    for labels, n, i in ends:
        if not plans or labels.cost[i] < plans[-1].cost:
            plans.append(Plan(float(labels.resource[i]), float(labels.cost[i]), _amounts(ways, n, i)))
    return plans


class _Labels(NamedTuple):
    """Ways to one number of tokens, an array each.

    Attributes:
        resource: what they have taken.
        cost: what they have spoilt.
        tokens: number of tokens before the last layer.
        way: which of the ways to that number it goes on from.
        r: tokens that the last layer has removed.
    """

    resource: np.ndarray
    cost: np.ndarray
    tokens: np.ndarray
    way: np.ndarray
    r: np.ndarray

    @classmethod
    def start(cls) -> '_Labels':
        return cls(np.zeros(1), np.zeros(1), *np.zeros((3, 1), int))

    @classmethod
    def joined(cls, labels: Sequence['_Labels']) -> '_Labels':
        return cls(*map(np.concatenate, zip(*labels)))

    def go_on(self, tokens: int, choice: Choice) -> '_Labels':
        """Return the ways that go on from these by a choice."""
        way = np.arange(len(self.cost))
        numbers = (np.full_like(way, tokens), way, np.full_like(way, choice.r))
        return _Labels(self.resource + choice.resource, self.cost + choice.cost, *numbers)

    def best(self) -> '_Labels':
        """Return those that no other one beats in both resource and cost, thinned where they are many."""
        order = np.lexsort((self.cost, self.resource))
        least = np.minimum.accumulate(self.cost[order])
        kept = order[np.append(True, least[1:] < least[:-1])]
        if len(kept) > _MOST_LABELS:
            along = self.resource[kept] - self.resource[kept[0]]
            part = (along / along[-1] * (_MOST_LABELS - 1)).astype(int)
            last = np.append(part[1:] != part[:-1], True)  # of a part of the range: the cheapest
            last[0] = True
            kept = kept[last]
        return _Labels(*(values[kept] for values in self))


def _amounts(ways: Sequence[dict[int, _Labels]], n: int, i: int) -> tuple[int, ...]:
    """Return what each layer removes on the way to so many tokens with a number."""
    amounts = []
    for states in reversed(ways):
        labels = states[n]
        amounts.append(int(labels.r[i]))
        n, i = int(labels.tokens[i]), int(labels.way[i])
    return tuple(reversed(amounts))


def within(plans: Sequence[Plan], most: float) -> Plan | None:
    """Return the plan of the least cost that takes at most so much, ``None`` where there is none."""
    return min((plan for plan in plans if plan.resource <= most), key=lambda plan: plan.cost, default=None)
