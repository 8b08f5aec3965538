"""DynamicViT: small networks beside the blocks predict which tokens are needed."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ...functional.reduction import selection_of
from ...functional.windows import Size
from ..tokens import Tokens
from .base import Amount, Counts, Network, ReducingStep, Step
from .drop import best
from .hiding import hide
from .schedule import plan


class Predictor(nn.Module):
    """Predict which tokens are needed, from each one and from the mean of those that are there.

    Args:
        embed_dims: channels C of the tokens.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        half, quarter = embed_dims // 2, max(embed_dims // 4, 1)
        self.norm = nn.LayerNorm(embed_dims)
        self.fc1 = nn.Linear(embed_dims, 2 * half)
        self.fc2 = nn.Linear(2 * half, half)
        self.fc3 = nn.Linear(half, quarter)
        self.fc4 = nn.Linear(quarter, 2)

    def forward(self, x: Tensor, size: Tensor | None) -> Tensor:
        """Return the logits of keeping and of dropping each token.

        Args:
            x: (B, N, C).
            size: (B, N, 1), what each token counts in the mean; ``None`` for one each.

        Returns:
            (B, N, 2), in float32.
        """
        local, rest = F.gelu(self.fc1(self.norm(x))).chunk(2, dim=-1)
        size = torch.ones_like(x[..., :1]) if size is None else size
        mean = (rest * size).sum(dim=1, keepdim=True) / size.sum(dim=1, keepdim=True)
        x = torch.cat((local, mean.to(local.dtype).expand_as(local)), dim=-1)
        return self.fc4(F.gelu(self.fc3(F.gelu(self.fc2(x))))).float()


class DynamicViT(ReducingStep):
    """Keep the tokens that a predictor scores highest, before attention; in training those that it draws.

    "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification", arXiv 2106.02034, section 3: in
    training a token is kept or not by Gumbel-softmax with gradients straight through, and one that is not is hidden
    from the others' attention, while it stays in its place. Ours: it is hidden by its size, which is near 0, so that it
    does not see itself alone as in the paper, but as little of itself as the others do.

    Args:
        amount: how much is dropped.
        embed_dims: channels C of the tokens.
    """

    loses_patches = hides = learns_amount = True

    def __init__(self, amount: Amount, embed_dims: int) -> None:
        super().__init__(amount)
        self.predictor = Predictor(embed_dims)

    def counts(self, count: int, grid: Size) -> Counts:
        kept = self.kept(count, grid)
        return Counts(kept, kept, kept)

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Run the block on the tokens that are kept."""
        if self.amount != Amount():
            prefix = tokens.layout.num_prefix
            size = None if tokens.size is None else tokens.size[:, prefix:]
            logits = self.predictor(tokens.x[:, prefix:], size)
            tokens = (self._hide if self.predictor.training else self._drop)(tokens, logits)
        return tokens._replace(x=block(tokens.x, None, tokens.attention(), key_bias=tokens.key_bias))

    def _drop(self, tokens: Tokens, logits: Tensor) -> Tokens:
        """Keep as many tokens as the amount says."""
        kept = best(logits[..., 0] - logits[..., 1], self.kept_of(tokens), tokens.layout.num_prefix)
        reduction = selection_of(kept, tokens.x.shape[1])
        return tokens.reduced(reduction, reduction.merge(tokens.x))

    def _hide(self, tokens: Tokens, logits: Tensor) -> Tokens:
        """Draw which tokens are kept, and give the others a size near 0."""
        prefix = tokens.layout.num_prefix
        kept = F.gumbel_softmax(logits, hard=True)[..., 0]
        kept = kept * tokens.kept[-1] if tokens.kept else kept
        size = F.pad(kept, (prefix, 0), value=1)[..., None]
        return hide(tokens._replace(kept=(*tokens.kept, kept)), size)


def dynamicvit(network: Network, blocks: Sequence[int] | None = None, **amount: Any) -> list[Step]:
    """Return the steps of DynamicViT: in a few blocks the tokens are kept that a predictor scores highest.

    Args:
        network: the transformer. Where it pools the patches, in training it must do so by their sizes, as
            :class:`.STViT` does; others must give the class token's features.
        blocks: where tokens are dropped, from 0; by default 3, 6 and 9 of 12, and the same quarters of others.
        **amount: ``keep_rate``, as in the paper, ``r`` or ``budget``, see :func:`.plan`.

    Raises:
        ValueError: amounts that cannot be.
    """

    def make(layer: int, amounts: Sequence[Amount]) -> Step:
        return DynamicViT(amounts[layer], network.embed_dims)

    return plan(network, make, amount, blocks, weights=True)
