"""Top-k and EViT: the tokens that the class token attends to most are kept."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.reduction import one_hot, reduction_to, take
from ...functional.windows import Size
from ..tokens import Tokens
from .base import Counts, Network, ReducingStep, Step
from .drop import Drop, attention_of_class, best, check_class_token, dropping
from .schedule import plan


class TopK(Drop):
    """Keep the tokens that the class token attends to most, the mean over heads, between attention and MLP.

    "Not All Patches Are What You Need: Expediting Vision Transformers via Token Reorganizations" (EViT), arXiv
    2202.07800, section 3.2, without its fused token. Kept tokens stay in their old order.
    """

    def score(self, tokens: Tokens, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_of_class(tokens, q, k).mean(dim=1)[:, tokens.layout.num_prefix :]


class EViT(ReducingStep):
    """Keep the tokens that the class token attends to most, and append one that is fused of the others.

    arXiv 2202.07800, equation 4: the fused token is the sum of the dropped ones, each times the class token's attention
    to it, the mean over heads, as it is. It is an ordinary token from then on. Its rows of the token map are the
    patches that it was fused of.
    """

    loses_patches = True  # the fused token is no mean of them

    def counts(self, count: int, grid: Size) -> Counts:
        kept = self.kept(count, grid)
        after = kept + (kept < count)
        return Counts(count, after, after)

    def reduce(self, tokens: Tokens, q: Tensor, k: Tensor, v: Tensor) -> Tokens:
        if self.removed_of(tokens) == 0:
            return tokens
        x, prefix, count = tokens.x, tokens.layout.num_prefix, self.kept_of(tokens)
        score = attention_of_class(tokens, q, k).mean(dim=1)[:, prefix:]
        kept = best(score.detach(), count, prefix)
        is_kept = one_hot(kept, x.shape[1]).any(dim=1)  # (B, N)
        weight = F.pad(score, (prefix, 0)).masked_fill(is_kept, 0)
        fused = weight[:, None].to(x.dtype) @ x
        reduction = reduction_to(torch.where(is_kept, is_kept.cumsum(dim=1) - 1, prefix + count), prefix + count + 1)
        return tokens.reduced(reduction, torch.cat((take(x, kept), fused), dim=1))


def topk(network: Network, fuse_last: bool = False, blocks: Sequence[int] | None = None, **amount: Any) -> list[Step]:
    """Return the steps of top-k: in a few blocks the tokens are kept that the class token attends to most.

    Args:
        network: the transformer.
        fuse_last: whether the dropped tokens are put back before the last block.
        blocks: where tokens are dropped, from 0; by default 3, 6 and 9 of 12, and the same quarters of others.
        **amount: ``r``, ``keep_rate`` or ``budget``, see :func:`.plan`; the paper has ``keep_rate=0.7``.

    Raises:
        ValueError: there is no class token, or amounts cannot be.
    """
    check_class_token(network, 'TopK')
    return dropping(network, lambda i, amount: TopK(amount, fuse_last), amount, fuse_last, blocks)


def evit(network: Network, blocks: Sequence[int] | None = None, **amount: Any) -> list[Step]:
    """Return the steps of EViT: as :func:`topk`, and one token is fused of those that are not kept.

    Args:
        network: the transformer.
        blocks: where, as of :func:`topk`.
        **amount: ``r``, ``keep_rate`` or ``budget``, see :func:`.plan`; the fused token is not among those kept.

    Raises:
        ValueError: there is no class token, or amounts cannot be.
    """
    check_class_token(network, 'EViT')
    return plan(network, lambda i, amounts: EViT(amounts[i]), amount, blocks)
