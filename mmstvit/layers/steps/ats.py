"""ATS: tokens are sampled by the class token's attention; an image may need fewer than there are places."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.reduction import selection_of, with_prefix
from ...functional.scores import sample_inverse
from ..tokens import Tokens
from .base import Network, Step
from .drop import Drop, attention_of_class, check_class_token, dropping


class ATS(Drop):
    """Sample tokens evenly in the cumulative sum of their scores, between attention and MLP.

    "Adaptive Token Sampling for Efficient Vision Transformers", arXiv 2111.15667, section 3.2: the score is the class
    token's attention times the norm of the value, summed over heads. A token sampled more than once counts once. Ours:
    places of repeated samples stay, so that all images have as many: their size is 0, so that no token attends to them
    and means by size leave them out.
    """

    hides = True

    def score(self, tokens: Tokens, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        score = attention_of_class(tokens, q, k) * v.norm(dim=-1)  # (B, heads, N)
        return score.sum(dim=1)[:, tokens.layout.num_prefix :]

    def reduce(self, tokens: Tokens, q: Tensor, k: Tensor, v: Tensor) -> Tokens:
        if self.removed_of(tokens) == 0:
            return tokens
        prefix, total = tokens.layout.num_prefix, tokens.x.shape[1]
        with torch.no_grad():
            there = None if tokens.size is None else tokens.size[:, prefix:, 0] > 0
            chosen, first = sample_inverse(self.score(tokens, q, k, v), self.kept_of(tokens), there)
            valid = F.pad(first.to(tokens.x.dtype), (prefix, 0), value=1)
        reduced = self.drop(tokens, selection_of(with_prefix(chosen, prefix), total, valid))
        return reduced._replace(size=valid[..., None])


def ats(network: Network, fuse_last: bool = False, blocks: Sequence[int] | None = None, **amount: Any) -> list[Step]:
    """Return the steps of ATS: in a few blocks tokens are sampled by the class token's attention.

    Args:
        network: the transformer.
        fuse_last: whether tokens that were not sampled are put back before the last block.
        blocks: where tokens are sampled, from 0; by default 3, 6 and 9 of 12, and the same quarters of others.
        **amount: ``r``, ``keep_rate`` or ``budget``, see :func:`.plan`: of the places that samples have.

    Raises:
        ValueError: there is no class token, or amounts cannot be.
    """
    check_class_token(network, 'ATS')
    return dropping(network, lambda i, amount: ATS(amount, fuse_last), amount, fuse_last, blocks)
