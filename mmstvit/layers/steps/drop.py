"""Dropping steps: some tokens are kept as they are and the others are lost, or put back before the last block."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from ...functional.attention import add_key_bias
from ...functional.reduction import Reduction, compose, selection_of, with_prefix
from ...functional.scores import class_attention
from ...functional.windows import Size
from ..tokens import Tokens
from .base import Amount, Counts, Network, ReducingStep, Step
from .schedule import plan


def logit_bias(tokens: Tokens) -> Tensor | None:
    """Return all that the block has added to its logits, broadcast to (B, heads, N, N), or ``None``."""
    attention = tokens.attention()
    return add_key_bias(None if attention is None else attention.bias, tokens.key_bias)


def attention_of_class(tokens: Tokens, q: Tensor, k: Tensor) -> Tensor:
    """Return the class token's attention to each token, (B, heads, N), with all that the block added to its logits."""
    bias = logit_bias(tokens)
    return class_attention(q, k, None if bias is None else bias[:, :, 0])


def best(score: Tensor, count: int, prefix: int) -> Tensor:
    """Return the tokens with the highest scores (B, prefix + count), in their old order, behind those of the prefix.

    Args:
        score: (B, N), without prefix tokens.
        count: how many.
        prefix: tokens at the front.
    """
    return with_prefix(score.topk(count, dim=-1).indices.sort(dim=-1).values, prefix)


class Drop(ReducingStep):
    """Drop the tokens with the lowest scores between attention and MLP; a subclass says the scores.

    Args:
        amount: how much is dropped.
        fuse_last: whether the dropped tokens are kept aside, to be put back by :class:`Restore`.
    """

    def __init__(self, amount: Amount, fuse_last: bool = False) -> None:
        super().__init__(amount)
        self.fuse_last, self.loses_patches = fuse_last, not fuse_last

    def score(self, tokens: Tokens, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the score of each token (B, N), without prefix tokens."""
        raise NotImplementedError

    def drop(self, tokens: Tokens, reduction: Reduction) -> Tokens:
        """Keep the tokens that a reduction keeps."""
        dropped = tokens.dropped
        if self.fuse_last:
            x = reduction.merge(tokens.x)
            lost = 1 - reduction.unmerge(torch.ones_like(x[..., :1]))
            here = compose(tokens.trace).unmerge(tokens.x * lost)  # at their patches; earlier ones have zeros
            dropped = here if dropped is None else dropped + here
        return tokens.reduced(reduction, reduction.merge(tokens.x))._replace(dropped=dropped)

    def reduce(self, tokens: Tokens, q: Tensor, k: Tensor, v: Tensor) -> Tokens:
        with torch.no_grad():
            kept = best(self.score(tokens, q, k, v), self.kept_of(tokens), tokens.layout.num_prefix)
        return self.drop(tokens, selection_of(kept, tokens.x.shape[1]))


class Restore(Step):
    """Put dropped tokens back to their places, with the values that they had, and let all attend to each other.

    Last-block fusion, as in "Token Cropr: Faster ViTs for Quite a Few Tasks", arXiv 2412.00965: dense outputs
    have a token for each patch.
    """

    def counts(self, count: int, grid: Size) -> Counts:
        count = math.prod(grid)
        return Counts(count, count, count)

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Run the block on all tokens."""
        patches = Tokens(tokens.unmerge(), tokens.layout)
        return patches._replace(x=block(patches.x, None, patches.attention()))


def dropping(
    network: Network,
    make: Callable[[int, Amount], Step],
    amount: dict,
    fuse_last: bool = False,
    blocks: Sequence[int] | None = None,
    default: Sequence[int] | None = None,
) -> list[Step]:
    """Return the steps of a method that drops tokens in a few blocks.

    Args:
        network: the transformer.
        make: returns the step of a block, from its number and its amount.
        amount: as of :func:`.plan`.
        fuse_last: whether the dropped tokens are put back before the last block.
        blocks: where tokens are dropped, from 0.
        default: where, if that is not given; see :func:`.plan`.
    """
    last = Restore() if fuse_last else None
    return plan(network, lambda i, amounts: make(i, amounts[i]), amount, blocks, default, last=last)


def check_class_token(network: Network, method: str) -> None:
    """Refuse a network without a class token.

    Raises:
        ValueError: it has none.
    """
    if not (network.num_prefix and network.class_token):
        raise ValueError(f'{method} scores tokens by the attention of the class token: it needs with_cls_token=True')
