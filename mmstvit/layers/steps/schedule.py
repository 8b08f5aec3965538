"""How much is reduced in which block: by numbers of tokens, by shares, or by what the encoder may cost."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

from ...functional.windows import Size
from .base import Amount, Counts, Network, SelfAttention, Step

AMOUNTS = ('r', 'keep_rate', 'budget')
_IDLE = dict(r=0, keep_rate=1)  # amounts that reduce nothing


def after_quarters(network: Network) -> tuple[int, ...]:
    """Return the blocks after the first, the second and the third quarter: 3, 6 and 9 of 12, from 0, as in EViT."""
    return tuple(network.num_layers * i // 4 for i in (1, 2, 3))


def tokens_per_block(network: Network, steps: Sequence[Step], grid: Size | None = None) -> list[int]:
    """Return how many tokens leave each block, without prefix tokens.

    Args:
        network: the transformer.
        steps: one for each of its blocks.
        grid: image tokens along each axis; by default those of the network.
    """
    return [counts.after for counts in _counts(network, steps, grid)]


def multiply_adds(network: Network, steps: Sequence[Step], grid: Size | None = None) -> list[int]:
    """Return the multiply-adds of each block for one image: its projections, its attention and its MLP.

    With n tokens in attention, m in the MLP and width C: ``4 n C^2 + 2 n^2 C + 2 m C mlp_ratio C``. What the reduction
    itself costs is not among them.

    Args:
        network: the transformer.
        steps: one for each of its blocks.
        grid: image tokens along each axis; by default those of the network.
    """
    return [block_multiply_adds(network, counts) for counts in _counts(network, steps, grid)]


def multiply_add_share(network: Network, steps: Sequence[Step]) -> float:
    """Return the multiply-adds of all blocks, in those of the plain transformer, at the network's own image size."""
    return sum(multiply_adds(network, steps)) / sum(multiply_adds(network, [SelfAttention()] * network.num_layers))


def block_multiply_adds(network: Network, counts: Counts) -> int:
    """Return the multiply-adds of one block for one image with so many tokens in it, see :func:`multiply_adds`."""
    width, hidden = network.embed_dims, round(network.mlp_ratio * network.embed_dims)
    n, m = network.num_prefix + counts.attention, network.num_prefix + counts.mlp
    return 4 * n * width**2 + 2 * n**2 * width + 2 * m * width * hidden


def _counts(network: Network, steps: Sequence[Step], grid: Size | None) -> list[Counts]:
    grid = network.grid if grid is None else grid
    count, all_counts = math.prod(grid), []
    for step in steps:
        all_counts.append(step.counts(count, grid))
        count = all_counts[-1].after
    return all_counts


def plan(
    network: Network,
    make: Callable[[int, Sequence[Amount]], Step],
    amount: dict,
    blocks: Sequence[int] | None = None,
    default: Sequence[int] | None = None,
    unit: str = 'keep_rate',
    last: Step | None = None,
    to: int | None = None,
    weights: bool = False,
) -> list[Step]:
    """Return one step for each block, from the amount that is given in one of three ways.

    Args:
        network: the transformer.
        make: returns the step of a block, from its number and the amounts of all blocks.
        amount: one of ``r``, tokens to remove in each of the blocks, or one number a block of the network;
            ``keep_rate``, the share of the tokens to keep, in the same two ways; ``budget``, the share of the
            multiply-adds of the plain transformer's blocks that the reduced ones may cost, at the image size that the
            network is made for.
        blocks: those that one number is for, from 0.
        default: those where none are given; by default :func:`after_quarters`.
        unit: what is looked for to keep a budget: ``'r'``, which differs by one between blocks at the most, the first
            ones removing more, or one ``'keep_rate'``.
        last: the step of the last block, where it is another.
        to: ``r`` changes linearly from the first block to this in the last.
        weights: whether the steps have weights: with one number they stay where nothing is reduced, so that the
            weights are the same whatever it is.

    Raises:
        ValueError: none is given or more than one, or one that cannot be.
        TypeError: there is no such option.
    """
    name, value = _only(amount)
    default = after_quarters(network) if default is None else default
    if to is not None and not (name == 'r' and isinstance(value, Integral)):
        raise ValueError(f'to={to} goes with one number for r, got {name}={value!r}')
    if to is not None and (type(to) is not int or to < 0):
        raise ValueError(f'to={to!r} must be an integer of at least 0')

    def steps_of(name: str, value: Any, more: int = 0) -> list[Step]:
        idle, numbers = Amount(), _numbers(network, blocks, default, name, value, to)
        used = default if blocks is None else blocks
        numbers = [n + (i in used[:more]) for i, n in enumerate(numbers)]
        amounts = [Amount(**{name: number}) for number in numbers]
        if last is not None and amounts[-1] != idle:
            raise ValueError(f'{name}={value} reduces in the last block, where the tokens are put back')
        stay = used if weights and isinstance(value, Real) else ()
        steps = [
            SelfAttention() if amount == idle and i not in stay else make(i, amounts)
            for i, amount in enumerate(amounts)
        ]
        return steps if last is None else [*steps[:-1], last]

    if name != 'budget':
        return steps_of(name, value)
    if unit == 'r':  # of all blocks: the first ones remove one more, where it cannot be divided
        count = len(default if blocks is None else blocks)
        return _within(network, value, unit, lambda total: steps_of('r', total // count, int(total % count)))
    return _within(network, value, unit, lambda value: steps_of(unit, value))


def _only(amount: dict) -> tuple[str, Any]:
    """Return the one way in which an amount is given, and its value."""
    for name in amount:
        if name not in AMOUNTS:
            raise TypeError(f'got an unexpected keyword argument {name!r}')
    if len(amount) != 1:
        raise ValueError(f'give one of r, keep_rate and budget, got {amount or "none of them"}')
    return next(iter(amount.items()))


def _numbers(
    network: Network, blocks: Sequence[int] | None, default: Sequence[int], name: str, value: Any, to: int | None
) -> list:
    """Return the amount of each block."""
    depth, idle, numbers = network.num_layers, _IDLE[name], value
    if isinstance(value, Real):
        blocks = default if blocks is None else blocks
        known = isinstance(blocks, Sequence) and all(type(i) is int and 0 <= i < depth for i in blocks)
        if not known or not blocks or len({*blocks}) < len(blocks):
            raise ValueError(f'blocks={blocks} must be numbers of some of the {depth} blocks, from 0')
        numbers = [value if i in blocks else idle for i in range(depth)]
    elif blocks is not None:
        raise ValueError(f'blocks={blocks} has no effect with {name}={value}, a number for each block: leave it out')
    if to is not None:
        numbers = [round(value + (to - value) * i / max(depth - 1, 1)) for i in range(depth)]
    if name == 'r':
        what, right = 'not below 0', [isinstance(n, Integral) and n >= 0 for n in _listed(numbers)]
    else:
        what, right = 'above 0 and at most 1', [isinstance(n, Real) and 1e-9 <= n <= 1 for n in _listed(numbers)]
    if len(right) != depth or not all(right) or any(isinstance(n, bool) for n in numbers):
        raise ValueError(f'{name}={value!r} must be one number, or {depth}, {what}')
    return [int(n) if name == 'r' else float(n) for n in numbers]


def _listed(numbers: Any) -> Sequence:
    return numbers if isinstance(numbers, Sequence) and not isinstance(numbers, str) else ()


def _within(network: Network, budget: float, unit: str, steps_of: Callable[[float], list[Step]]) -> list[Step]:
    """Return the steps that reduce least within a budget, by bisection."""
    if not (isinstance(budget, Real) and not isinstance(budget, bool) and 0 < budget <= 1):
        raise ValueError(f'budget={budget!r} must be above 0 and at most 1')
    dense = sum(multiply_adds(network, [SelfAttention()] * network.num_layers))

    def share(value: float) -> float:
        return sum(multiply_adds(network, steps_of(value))) / dense

    none, most = _IDLE[unit], (math.prod(network.grid) * network.num_layers if unit == 'r' else 1e-6)
    if share(none) <= budget:
        return steps_of(none)
    if share(most) > budget:
        raise ValueError(f'budget={budget} cannot be kept: these blocks cost {share(most):.3f} at the least')
    too_little: float
    too_little, enough = none, most
    while abs(enough - too_little) > (1 if unit == 'r' else 1e-4):
        middle = (enough + too_little) // 2 if unit == 'r' else (enough + too_little) / 2
        too_little, enough = (too_little, middle) if share(middle) <= budget else (middle, enough)
    return steps_of(enough)
