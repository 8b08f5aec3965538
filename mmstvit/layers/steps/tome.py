"""ToMe: in each layer the most similar pairs of tokens are merged. Needs no training."""

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor

from ...functional.reduction import Reduction, bipartite_soft_matching, merge_weighted
from ..tokens import Tokens
from .base import SelfAttention, Step


class ToMe(Step):
    """Merge the r most similar pairs of tokens between attention and MLP.

    "Token Merging: Your ViT But Faster", arXiv 2210.09461, section 3: similarity is that of the keys, the mean over
    heads; a token that stands for several patches counts as many times in means and in attention.

    Args:
        r: tokens to remove; fewer where fewer can be merged.
    """

    def __init__(self, r: int) -> None:
        super().__init__()
        self.r = r

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Run the block; afterwards there are r tokens fewer."""
        prefix = tokens.layout.num_prefix
        r = min(self.r, (tokens.x.shape[1] - prefix) // 2)

        def reduce(x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, tuple[Tensor, Reduction]]:
            with torch.no_grad():
                reduction = bipartite_soft_matching(k.mean(dim=1), r, prefix)
            x, size = merge_weighted(reduction, x, tokens.size)
            return x, (size, reduction)

        layout = tokens.layout.image_attention(tokens.x)
        x, (size, reduction) = block(tokens.x, None, layout, key_bias=tokens.key_bias, reduce=reduce)
        return tokens._replace(x=x, size=size, trace=(*tokens.trace, reduction))


def tome(num_layers: int, embed_dims: int, grid: tuple[int, ...], r: int | Sequence[int], to: int | None = None):
    """Return the steps of ToMe.

    Args:
        num_layers: blocks of the transformer.
        embed_dims: unused; of the tokens.
        grid: unused; of the image tokens.
        r: tokens to remove in each layer, or one number a layer.
        to: ``r`` changes linearly from the first layer to this in the last; ``r=26, to=0`` removes as many tokens as
            ``r=13`` and more of them early, which is faster.

    Raises:
        ValueError: numbers that are negative or too few.
    """
    schedule = [r] * num_layers if isinstance(r, int) else list(r)
    if to is not None:
        if not isinstance(r, int):
            raise ValueError(f'to={to} goes with one number for r, got r={r}')
        schedule = [round(r + (to - r) * i / max(num_layers - 1, 1)) for i in range(num_layers)]
    if len(schedule) != num_layers or not all(isinstance(n, int) and n >= 0 for n in schedule):
        raise ValueError(f'r={r} must be one number, or {num_layers}, not below 0')
    return [ToMe(n) if n else SelfAttention() for n in schedule]
