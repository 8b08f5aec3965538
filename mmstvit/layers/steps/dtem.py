"""DTEM: as ToMe, but tokens are compared by a small embedding that is learnt for it."""

from collections.abc import Sequence
from typing import Any

import torch.nn as nn
from torch import Tensor

from ...functional.matching import bipartite_soft_matching
from ...functional.reduction import Reduction
from ...functional.soft_matching import relaxed_matching
from ..tokens import Tokens
from .base import Amount, Network, Step
from .schedule import plan
from .tome import ToMe


class MatchingEmbedding(nn.Linear):
    """A linear map of tokens (B, N, C) to what their similarity is taken of (B, N, D)."""


class DTEM(ToMe):
    """Merge the pairs of tokens that a learned embedding finds most similar; in training in shares.

    "Learning to Merge Tokens via Decoupled Embedding for Efficient Vision Transformers", arXiv 2412.10569: the
    embedding sees the tokens as they leave the attention and has no part in anything else, so that it can be trained
    while the network stays as it is. See :func:`.relaxed_matching`.

    Args:
        amount: tokens to remove; at most half of them are.
        embed_dims: channels C of the tokens.
        dims: D of the embedding.
        temperature: of the shares.
        proportional: whether a token that stands for several patches weighs as those do in attention.
    """

    learns_sizes = True

    def __init__(self, amount: Amount, embed_dims: int, dims: int, temperature: float, proportional: bool) -> None:
        super().__init__(amount, proportional)
        self.embedding, self.temperature = MatchingEmbedding(embed_dims, dims, bias=False), temperature

    def match(self, tokens: Tokens, k: Tensor) -> Reduction:
        metric = self.embedding(tokens.x)
        removed, prefix = self.removed_of(tokens), tokens.layout.num_prefix
        if self.embedding.training:
            return relaxed_matching(metric, removed, prefix, self.temperature)
        return bipartite_soft_matching(metric, removed, prefix)


def dtem(
    network: Network,
    dims: int = 64,
    temperature: float = 0.1,
    to: int | None = None,
    proportional: bool = True,
    **amount: Any,
) -> list[Step]:
    """Return the steps of DTEM: in each block the pairs are merged that an embedding of its own finds most similar.

    Args:
        network: the transformer.
        dims: channels of the embeddings.
        temperature: how soft merging is in training.
        to: as in :func:`.tome`.
        proportional: whether a token that stands for several patches weighs as those do in attention.
        **amount: ``r``, ``keep_rate`` or ``budget``, see :func:`.plan`.

    Raises:
        ValueError: ``dims`` or ``temperature`` is not above 0, or amounts that cannot be.
    """
    if not (isinstance(dims, int) and dims > 0 and temperature > 0):
        raise ValueError(f'dims={dims} and temperature={temperature} must be above 0')

    def make(layer: int, amounts: Sequence[Amount]) -> Step:
        return DTEM(amounts[layer], network.embed_dims, dims, temperature, proportional)

    return plan(network, make, amount, default=range(network.num_layers), unit='r', to=to, weights=True)
