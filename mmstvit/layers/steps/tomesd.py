"""ToMe for dense outputs: tokens are merged for the attention alone."""

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ...functional.matching import cell_count, cell_matching
from ...functional.reduction import Reduction, merge_weighted
from ...functional.windows import Size
from ..tokens import Tokens
from .base import Amount, Counts, Network, ReducingStep, Step
from .schedule import plan


class ToMeSD(ReducingStep):
    """Merge tokens, let them attend to each other, and give what each got to all that it was merged of.

    "Token Merging for Fast Stable Diffusion", arXiv 2303.17604, section 4: the targets of the matching are one token of
    each 2 x 2 cell; similarity is that of the tokens themselves. The number of tokens never changes. Ours: tokens are
    merged before the norm, the target is always the first of its cell, and there may be prefix tokens.

    Args:
        amount: tokens to merge; at most all but one of each cell are.
        proportional: whether a merged token weighs in attention as those that it was merged of; the paper has no such
            weights.
    """

    def __init__(self, amount: Amount, proportional: bool = True) -> None:
        super().__init__(amount)
        self.proportional = proportional

    def least(self, count: int, grid: Size) -> int:
        return cell_count(grid)

    def counts(self, count: int, grid: Size) -> Counts:
        return Counts(self.kept(count, grid), count, count)

    def matching(self, tokens: Tokens) -> Reduction:
        """Return which tokens are merged for the attention."""
        x, layout = tokens.x, tokens.layout
        with torch.no_grad():
            return cell_matching(x, tokens.grid, self.removed_of(tokens), layout.num_prefix)

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Run the block on merged tokens, and its MLP on all."""
        x, reduction = tokens.x, self.matching(tokens)
        merged, size = merge_weighted(reduction, x, None)

        def unmerge(out: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, None]:
            return x + reduction.unmerge(out - merged), None  # what the attention has added

        few = tokens.reduced(reduction, merged, size)._replace(proportional=self.proportional)
        return tokens._replace(x=block(merged, None, few.attention(), key_bias=few.key_bias, reduce=unmerge)[0])


def tomesd(network: Network, proportional: bool = True, **amount: Any) -> list[Step]:
    """Return the steps of ToMe for dense outputs: in each block tokens are merged for the attention alone.

    Args:
        network: the transformer.
        proportional: whether a merged token weighs in attention as those that it was merged of.
        **amount: ``r``, ``keep_rate`` or ``budget``, see :func:`.plan`.

    Raises:
        ValueError: amounts that cannot be.
    """
    blocks = range(network.num_layers)
    return plan(network, lambda i, amounts: ToMeSD(amounts[i], proportional), amount, default=blocks, unit='r')
