"""Representation Shift: the tokens that the MLP changes least are dropped."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ...functional.reduction import selection_of
from ...functional.windows import Size
from ..tokens import Tokens
from .base import Counts, Network, Step
from .drop import Drop, best, dropping


class RepresentationShift(Drop):
    """Drop the tokens whose representation the MLP shifts least, after the MLP.

    "Representation Shift: Unifying Token Compression with FlashAttention", arXiv 2508.00367: the score is the norm of
    ``MLP(LN x) - x``. It needs no attention map and no class token. Ours: LayerScale and stochastic depth of the branch
    are part of its output.
    """

    def counts(self, count: int, grid: Size) -> Counts:
        return Counts(count, count, self.kept(count, grid))

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Run the block, and keep the tokens with the largest shift."""

        def remember(x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

        prefix = tokens.layout.num_prefix
        x, before = block(tokens.x, None, tokens.attention(), key_bias=tokens.key_bias, reduce=remember)
        with torch.no_grad():
            score = (x - 2 * before).norm(dim=-1)[:, prefix:]  # x = before + MLP(LN before)
            kept = best(score, self.kept_of(tokens), prefix)
        return self.drop(tokens._replace(x=x), selection_of(kept, x.shape[1]))


def representation_shift(
    network: Network, fuse_last: bool = False, blocks: Sequence[int] | None = None, **amount: Any
) -> list[Step]:
    """Return the steps of Representation Shift: in a few blocks the tokens are dropped that the MLP changes least.

    Args:
        network: the transformer.
        fuse_last: whether the dropped tokens are put back before the last block.
        blocks: where tokens are dropped, from 0; by default 0, 3 and 6 of 12, and the same quarters of others.
        **amount: ``r``, ``keep_rate`` or ``budget``, see :func:`.plan`; the paper has ``keep_rate=0.8``.

    Raises:
        ValueError: amounts that cannot be.
    """
    default = [network.num_layers * i // 4 for i in range(3)]
    return dropping(
        network, lambda i, amount: RepresentationShift(amount, fuse_last), amount, fuse_last, blocks, default
    )
