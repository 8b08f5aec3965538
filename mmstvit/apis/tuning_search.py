"""Search how many tokens each layer removes, for the least cost at a time."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    states = {count: [(0.0, 0.0, None)]}  # tokens -> (resource, cost, (way before, r))
    for layer in range(layers):
        reached: dict[int, list[tuple]] = {}
        for n, labels in states.items():
            for choice in choices(layer, n):
                reached.setdefault(choice.after, []).extend(
                    (resource + choice.resource, cost + choice.cost, (way, choice.r)) for resource, cost, way in labels
                )
        states = {n: _best(labels) for n, labels in reached.items()}
    labels = _undominated([label for labels in states.values() for label in labels])
    return [Plan(resource, cost, _amounts(way)) for resource, cost, way in labels]


def _undominated(labels: list[tuple]) -> list[tuple]:
    kept, least = [], math.inf
    for label in sorted(labels, key=lambda label: label[:2]):
        if label[1] < least:
            kept.append(label)
            least = label[1]
    return kept


def _best(labels: list[tuple]) -> list[tuple]:
    kept = _undominated(labels)
    if len(kept) <= _MOST_LABELS:
        return kept
    low, high = kept[0][0], kept[-1][0]
    parts = {int((label[0] - low) / (high - low) * (_MOST_LABELS - 1)): label for label in kept}  # the last: cheapest
    return [kept[0], *(label for label in parts.values() if label is not kept[0])]


def _amounts(way: tuple | None) -> tuple[int, ...]:
    amounts = []
    while way is not None:
        way, r = way
        amounts.append(r)
    return tuple(reversed(amounts))


def within(plans: Sequence[Plan], most: float) -> Plan | None:
    """Return the plan of the least cost that takes at most so much, ``None`` where there is none."""
    return min((plan for plan in plans if plan.resource <= most), key=lambda plan: plan.cost, default=None)
