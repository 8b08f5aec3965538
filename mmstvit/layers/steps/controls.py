"""Controls: as few tokens as a method has, chosen without looking at them. A method should do better."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...functional.matching import grid_cells
from ...functional.reduction import Reduction
from ...functional.scores import place_numbers
from ...functional.windows import Size
from ..tokens import Tokens
from .base import Amount, Network, Step
from .drop import Drop, dropping
from .merge import Merge
from .schedule import plan


class Random(Drop):
    """Keep tokens at random places, the same for all images, between attention and MLP.

    Args:
        amount: how much is dropped.
        fuse_last: whether the dropped tokens are kept aside, to be put back.
        seed: another one gives other places.
    """

    def __init__(self, amount: Amount, fuse_last: bool = False, seed: int = 0) -> None:
        super().__init__(amount, fuse_last)
        self.seed = seed

    def score(self, tokens: Tokens, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        count = tokens.x.shape[1] - tokens.layout.num_prefix
        return place_numbers(count, self.seed, tokens.x.device).expand(tokens.x.shape[0], -1)


class GridPool(Merge):
    """Merge the tokens of a grid into a coarser one of the same proportions, between attention and MLP.

    Each axis shrinks by the same share, so that the count is only near to the one that is asked for.

    Args:
        amounts: of all blocks up to this one, which say the grid of the tokens here.
        proportional: whether a token weighs as the patches that it stands for.
    """

    def __init__(self, amounts: Sequence[Amount], proportional: bool = True) -> None:
        super().__init__(amounts[-1], proportional)
        self.amounts = tuple(amounts)

    def grids(self, grid: Size) -> tuple[Size, Size]:
        """Return tokens along each axis before and after, from those of the image."""
        before = after = tuple(grid)
        for amount in self.amounts:
            before, count = after, math.prod(after)
            shrink = (max(amount.kept(count), 1) / count) ** (1 / len(grid))
            after = tuple(max(math.floor(n * shrink + 0.5), 1) for n in before)
        return before, after

    def kept(self, count: int, grid: Size) -> int:
        return math.prod(self.grids(grid)[1])

    def match(self, tokens: Tokens, k: Tensor) -> Reduction:
        return grid_cells(*self.grids(tokens.grid), k.shape[0], tokens.layout.num_prefix, k.device)


def random(
    network: Network,
    fuse_last: bool = False,
    blocks: Sequence[int] | None = None,
    seed: int = 0,
    **amount: Any,
) -> list[Step]:
    """Return the steps of a control that drops tokens at random places.

    Args:
        network: the transformer.
        fuse_last: whether the dropped tokens are put back before the last block.
        blocks: where tokens are dropped, from 0; by default 3, 6 and 9 of 12, and the same quarters of others.
        seed: another one gives other places; each block has its own.
        **amount: ``r``, ``keep_rate`` or ``budget``, see :func:`.plan`.

    Raises:
        ValueError: amounts or a seed that cannot be.
    """
    if not 0 <= seed < 2**31:
        raise ValueError(f'seed={seed} must be at least 0 and below 2**31')

    def make(layer: int, amount: Amount) -> Step:
        return Random(amount, fuse_last, seed * network.num_layers + layer)

    return dropping(network, make, amount, fuse_last, blocks)


def grid_pool(
    network: Network, blocks: Sequence[int] | None = None, proportional: bool = True, **amount: Any
) -> list[Step]:
    """Return the steps of a control that pools the grid of the tokens.

    Args:
        network: the transformer.
        blocks: where it is pooled, from 0; by default 3, 6 and 9 of 12, and the same quarters of others.
        proportional: whether a token weighs as the patches that it stands for in attention.
        **amount: ``r``, ``keep_rate`` or ``budget``, see :func:`.plan`.

    Raises:
        ValueError: amounts that cannot be.
    """
    return plan(network, lambda i, amounts: GridPool(amounts[: i + 1], proportional), amount, blocks)
