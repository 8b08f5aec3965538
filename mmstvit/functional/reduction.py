"""Token reductions: linear maps from N tokens to M, each with its inverse, and their composition.

Everything here is a pure function. The first ``num_prefix`` tokens (class token, distillation token, registers) are
never merged and stay first.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Reduction(NamedTuple):
    """A map from N tokens to M, with its inverse.

    Attributes:
        merge: (B, N, D) -> (B, M, D), sums over the tokens that become one.
        unmerge: (B, M, D) -> (B, N, D), gives each token the value of the one that it became. Of the identity, it is
            the token map: row n is the share of each of the M tokens in token n.
    """

    merge: Callable[[Tensor], Tensor]
    unmerge: Callable[[Tensor], Tensor]


def reduction_of(destination: Tensor, num_tokens: int) -> Reduction:
    """Return the reduction that moves each token to the place given for it.

    The sums are a product with a one-hot matrix: a scatter would cost as much and stops exporters.

    Args:
        destination: (B, N), integers below ``num_tokens``.
        num_tokens: M.
    """

    def merge(x: Tensor) -> Tensor:
        return F.one_hot(destination, num_tokens).to(x.dtype).transpose(1, 2) @ x

    def unmerge(x: Tensor) -> Tensor:
        return x.gather(1, destination[..., None].expand(-1, -1, x.shape[-1]))

    return Reduction(merge, unmerge)


def compose(reductions: Sequence[Reduction]) -> Reduction:
    """Return the reduction that does the given ones in turn; of none, the identity."""

    def merge(x: Tensor) -> Tensor:
        return reduce(lambda x, reduction: reduction.merge(x), reductions, x)

    def unmerge(x: Tensor) -> Tensor:
        return reduce(lambda x, reduction: reduction.unmerge(x), reversed(reductions), x)

    return Reduction(merge, unmerge)


def merge_weighted(reduction: Reduction, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
    """Merge tokens to their mean, each weighted by the number of patches that it stands for.

    Args:
        reduction: which tokens become one.
        x: tokens (B, N, C).
        size: (B, N, 1), patches that a token stands for; ``None`` for one each.

    Returns:
        The tokens (B, M, C) and their sizes (B, M, 1), whose sum is that of ``size``.
    """
    if size is None:
        size = x.new_ones(*x.shape[:2], 1)
    merged = reduction.merge(size)
    return reduction.merge(x * size) / merged, merged


def bipartite_soft_matching(metric: Tensor, r: int, num_prefix: int = 0) -> Reduction:
    """Match tokens in pairs and merge the r most similar, as in "Token Merging: Your ViT But Faster".

    Equations of arXiv 2210.09461, section 3: tokens at even places are each matched with the most similar one at an odd
    place; the r best matches are merged, several into one where they meet. The order becomes: prefix tokens, those at
    even places that stay, those at odd places.

    Args:
        metric: (B, N, D), what similarity (the cosine) is taken of.
        r: tokens to remove, at most half of those that are not prefix tokens.
        num_prefix: tokens at the front that are never merged.

    Raises:
        ValueError: ``r`` is negative or too large.
    """
    total = metric.shape[1]
    if not 0 <= r <= (total - num_prefix) // 2:
        raise ValueError(f'r={r} must be between 0 and half of the {total - num_prefix} tokens that can be merged')
    places = torch.arange(num_prefix, total, device=metric.device)
    even, odd = places[num_prefix % 2 :: 2], places[1 - num_prefix % 2 :: 2]
    metric = F.normalize(metric, dim=-1)
    best, match = (metric[:, even] @ metric[:, odd].transpose(1, 2)).max(dim=-1)
    merged = best.argsort(dim=-1, descending=True).argsort(dim=-1) < r  # (B, even)
    first_odd = num_prefix + len(even) - r
    kept = num_prefix + (~merged).cumsum(dim=-1) - 1
    batch = len(metric)
    prefix = torch.arange(num_prefix, device=metric.device).expand(batch, -1)
    behind = torch.arange(first_odd, first_odd + len(odd), device=metric.device).expand(batch, -1)
    destination = torch.cat((prefix, torch.where(merged, first_odd + match, kept), behind), dim=1)
    back = torch.cat((prefix[0], even, odd)).argsort()  # from this order of columns to that of the tokens
    return reduction_of(destination[:, back], total - r)
