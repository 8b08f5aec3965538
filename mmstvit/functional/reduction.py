"""Token reductions: linear maps from N tokens to M, each with its inverse, and their composition.

Everything here is a pure function. The first ``num_prefix`` tokens (class token, distillation token, registers) are
never merged and stay first.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from .precision import full_precision


class Reduction(NamedTuple):
    """A map from N tokens to M, with its inverse.

    Attributes:
        merge: (B, N, D) -> (B, M, D), sums over the tokens that become one.
        unmerge: (B, M, D) -> (B, N, D), gives each token the value of the one that it became. Of the identity, it is
            the token map: row n is the share of each of the M tokens in token n.
        destination: returns the token that each becomes a part of, (B, N), where it is one.
    """

    merge: Callable[[Tensor], Tensor]
    unmerge: Callable[[Tensor], Tensor]
    destination: Callable[[], Tensor] | None = None


def one_hot(index: Tensor, count: int) -> Tensor:
    """Return a row for each number, true at its place: (...,) -> (..., count).

    PyTorch's own becomes a graph with the count of the example, where sizes are left open in export.
    """
    return index[..., None] == torch.arange(count, device=index.device)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Take tokens by their numbers: (B, N, C), (B, M) -> (B, M, C)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def with_prefix(index: Tensor, num_prefix: int) -> Tensor:
    """Count tokens with those of the prefix, each of which stays: (B, N) -> (B, num_prefix + N)."""
    prefix = torch.arange(num_prefix, device=index.device).expand(index.shape[0], -1)
    return torch.cat((prefix, num_prefix + index), dim=1)


def summed(x: Tensor, destination: Tensor, count: int) -> Tensor:
    """Sum tokens (B, N, C) that go to the same of so many places: (B, N) of the places -> (B, count, C).

    It is a product with a one-hot matrix: a scatter would cost as much and stops exporters. Autocast is off in it, so
    that the tokens keep their type and the sums their precision.
    """
    with full_precision(x):
        return one_hot(destination, count).to(x.dtype).transpose(1, 2) @ x


def reduction_to(destination: Tensor, num_tokens: int) -> Reduction:
    """Return the reduction that moves each token to the place given for it.

    Args:
        destination: (B, N), integers below ``num_tokens``.
        num_tokens: M.
    """

    def merge(x: Tensor) -> Tensor:
        return summed(x, destination, num_tokens)

    def unmerge(x: Tensor) -> Tensor:
        return take(x, destination)

    return Reduction(merge, unmerge, lambda: destination)


def reduction_into(target: Tensor, num_tokens: int) -> Reduction:
    """Return the reduction that merges each token into another; those that stay keep their order.

    Args:
        target: (B, N), the token that each is merged into, which stays; its own number for one that stays.
        num_tokens: M, how many stay.
    """
    stays = target == torch.arange(target.shape[1], device=target.device)
    return reduction_to((stays.cumsum(dim=1) - 1).gather(1, target), num_tokens)


def selection_of(kept: Tensor, num_tokens: int, valid: Tensor | None = None) -> Reduction:
    """Return the reduction that keeps some tokens and drops the others, whose rows of the token map are zeros.

    Args:
        kept: (B, M), the tokens that are kept.
        num_tokens: N, before.
        valid: (B, M), which of them count; zeros take the place of the others.
    """

    def mask(x: Tensor) -> Tensor:
        return x if valid is None else x * valid[..., None]

    def merge(x: Tensor) -> Tensor:
        return mask(take(x, kept))

    def unmerge(x: Tensor) -> Tensor:
        return summed(mask(x), kept, num_tokens)

    return Reduction(merge, unmerge)


def compose(reductions: Sequence[Reduction]) -> Reduction:
    """Return the reduction that does the given ones in turn; of none, the identity."""

    def merge(x: Tensor) -> Tensor:
        return reduce(lambda x, reduction: reduction.merge(x), reductions, x)

    def unmerge(x: Tensor) -> Tensor:
        destinations = [reduction.destination for reduction in reductions if reduction.destination is not None]
        if len(destinations) == len(reductions) > 0:
            # Numbers are followed through the layers, and wide tokens are copied once.
            numbers = [destination() for destination in destinations]
            return take(x, reduce(lambda first, then: then.gather(1, first), numbers))
        return reduce(lambda x, reduction: reduction.unmerge(x), reversed(reductions), x)

    return Reduction(merge, unmerge)


def merge_weighted(reduction: Reduction, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
    """Merge tokens to their mean, each weighted by the number of patches that it stands for.

    Args:
        reduction: which tokens become one.
        x: tokens (B, N, C).
        size: (B, N, 1), patches that a token stands for; ``None`` for one each.

    Returns:
        The tokens (B, M, C) and their sizes (B, M, 1), whose sum is that of ``size``, rounded to the type of ``x``.
    """
    if size is None:
        size = x.new_ones(*x.shape[:2], 1)
    if x.dtype == torch.float16:  # sums of many large values would be infinite
        sizes = reduction.merge(size)
        scale = 1 / sizes.amax(dim=1, keepdim=True)
        return reduction.merge(x * (size * scale)) / (sizes * scale), sizes
    merged = reduction.merge(torch.cat((x * size, size), dim=-1))
    size = merged[..., -1:]
    return merged[..., :-1] / size, size
