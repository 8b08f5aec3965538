"""ToMe: in each layer the most similar pairs of tokens are merged. Needs no training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...functional.matching import bipartite_soft_matching
from ...functional.reduction import Reduction, merge_weighted
from ...functional.windows import Size
from ..tokens import Tokens
from .base import Amount, Network, Step
from .merge import Merge
from .schedule import plan

MODES = ('mean', 'mlerp', 'drop', 'tofu')


class ToMe(Merge):
    """Merge the most similar pairs of tokens between attention and MLP.

    "Token Merging: Your ViT But Faster", arXiv 2210.09461, section 3: similarity is that of the keys, the mean over
    heads; a token that stands for several patches counts as many times in means and in attention.

    Args:
        amount: tokens to remove; at most half of them are.
        proportional: whether it counts as many times in attention.
        mode: what takes the place of merged tokens: ``'mean'``; ``'mlerp'``, the direction of the mean with the norm of
            the longest member ("Token Fusion", arXiv 2312.01026); ``'drop'``, the member at an odd place, as it is.
    """

    def __init__(self, amount: Amount, proportional: bool = True, mode: str = 'mean') -> None:
        super().__init__(amount, proportional)
        self.mode = mode

    def least(self, count: int, grid: Size) -> int:
        return count - count // 2

    def match(self, tokens: Tokens, k: Tensor) -> Reduction:
        return bipartite_soft_matching(k, self.removed_of(tokens), tokens.layout.num_prefix)

    def combine(self, reduction: Reduction, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
        merged, sizes = merge_weighted(reduction, x, size)
        if self.mode == 'drop':
            joined = reduction.unmerge(reduction.merge(torch.ones_like(x[..., :1]))) > 1
            even = torch.arange(x.shape[1], device=x.device)[:, None] % 2 == 0
            merged = reduction.merge(x.masked_fill(joined & even, 0))
        elif self.mode == 'mlerp':
            members = reduction.unmerge(
                torch.eye(merged.shape[1], device=x.device, dtype=x.dtype).expand(x.shape[0], -1, -1)
            )
            longest = (members * x.norm(dim=-1, keepdim=True)).amax(dim=1)[..., None]  # (B, N, M) -> (B, M, 1)
            single = reduction.merge(torch.ones_like(x[..., :1])) == 1
            scaled = merged * longest / merged.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
            merged = torch.where(single, merged, scaled)
        return merged, sizes


def tome(
    network: Network, to: int | None = None, proportional: bool = True, mode: str = 'mean', **amount: Any
) -> list[Step]:
    """Return the steps of ToMe: in each block the most similar pairs are merged.

    Args:
        network: the transformer.
        to: ``r`` changes linearly from the first block to this in the last; ``r=26, to=0`` removes as many tokens as
            ``r=13`` and more of them early, which is faster.
        proportional: whether a token that stands for several patches weighs as those do in attention. The paper leaves
            it out for weights of masked autoencoders.
        mode: ``'mean'``, ``'mlerp'`` or ``'drop'``, see :class:`ToMe`; or ``'tofu'``, ``'drop'`` in the first half of
            the blocks and ``'mlerp'`` in the others, as in "Token Fusion" (ToFu). Ours: where that half ends, and that
            a dropped token counts to the size of the one it was matched with.
        **amount: ``r``, ``keep_rate`` or ``budget``, see :func:`.plan`.

    Raises:
        ValueError: an unknown mode, or amounts that cannot be.
    """
    if mode not in MODES:
        raise ValueError(f'mode={mode!r} is unknown, choose from {MODES}')

    def make(layer: int, amounts: Sequence[Amount]) -> Step:
        early = 'drop' if layer < network.num_layers // 2 else 'mlerp'
        return ToMe(amounts[layer], proportional, early if mode == 'tofu' else mode)

    return plan(network, make, amount, default=range(network.num_layers), unit='r', to=to)
