"""Matchings that gradients go through: what training puts in the place of a choice."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .matching import bipartite_soft_matching, interleave
from .reduction import Reduction, one_hot


def relaxed_matching(metric: Tensor, r: int, num_prefix: int = 0, temperature: float = 0.1) -> Reduction:
    """Merge as :func:`.bipartite_soft_matching` does, but in shares, which have gradients.

    "Learning to Merge Tokens via Decoupled Embedding for Efficient Vision Transformers" (DTEM), arXiv 2412.10569,
    relaxes the choice of the r best matches and that of the match. Ours is how: tokens at even places share themselves
    out among those at odd places by the softmax of their similarities over the temperature. The r of the best matches
    do so wholly, so that there are as many tokens as without relaxation and in the same order; each other one does so
    by the part ``sigmoid((s - t) / temperature)``, where s is the similarity of its match and t the middle between the
    r-th best and the next. At a temperature near 0 it is the matching itself.

    Args:
        metric: (B, N, D), what similarity (the cosine) is taken of.
        r: tokens to remove, at most half of those that are not prefix tokens.
        num_prefix: tokens at the front that are never merged.
        temperature: of both choices.
    """
    hard = bipartite_soft_matching(metric.detach(), r, num_prefix)
    if r == 0:
        return hard
    num_kept, even_first = metric.shape[1] - r, num_prefix % 2 == 0
    metric = F.normalize(metric.float(), dim=-1)
    even, odd = metric[:, num_prefix + 1 - even_first :: 2], metric[:, num_prefix + even_first :: 2]
    similarity = even @ odd.transpose(1, 2)  # (B, A, T)
    # The hard map's rows: where each token goes among those that are there after it, odd ones last.
    rows = hard.unmerge(torch.eye(num_kept, device=metric.device).expand(metric.shape[0], -1, -1))
    prefix, rows = rows.tensor_split((num_prefix,), dim=1)
    own, odd_rows = (rows[:, ::2], rows[:, 1::2]) if even_first else (rows[:, 1::2], rows[:, ::2])
    best = similarity.amax(dim=-1, keepdim=True)
    threshold = best.topk(min(r + 1, best.shape[1]), dim=1).values[:, -2:].mean(dim=1, keepdim=True)
    merged = own[..., -odd.shape[1] :].any(dim=-1, keepdim=True)
    part = ((best - threshold) / temperature).sigmoid().masked_fill(merged, 1)
    shared = F.pad((similarity / temperature).softmax(dim=-1), (num_kept - odd.shape[1], 0))
    own = (1 - part) * own + part * shared
    return sharing(torch.cat((prefix, interleave(*((own, odd_rows) if even_first else (odd_rows, own)))), dim=1))


def sharing(share: Tensor) -> Reduction:
    """Return the reduction of a token map (B, N, M): how much of each token goes to each of those after it."""

    def merge(x: Tensor) -> Tensor:
        return share.transpose(1, 2).to(x.dtype) @ x

    def unmerge(x: Tensor) -> Tensor:
        return share.to(x.dtype) @ x

    return Reduction(merge, unmerge)


def above(score: Tensor, threshold: Tensor, temperature: float) -> Tensor:
    """Return 1 where a score is above a threshold and 0 elsewhere, with the gradients of a sigmoid (straight through).

    Args:
        score: of any shape.
        threshold: broadcast to it.
        temperature: of the sigmoid.
    """
    soft = ((score - threshold) / temperature).sigmoid()
    return soft - soft.detach() + (score > threshold)  # in this order it is exactly 0 or 1


def threshold_matching(
    metric: Tensor, threshold: Tensor, there: Tensor, num_prefix: int = 0, temperature: float = 0.1
) -> Tensor:
    """Merge each token at an even place whose match at an odd place is similar enough, while all stay in their places.

    "Learned Thresholds Token Merging and Pruning for Vision Transformers" (LTMP), arXiv 2307.10780: pairs are those of
    :func:`.bipartite_soft_matching`, merged where their similarity is above a threshold, see :func:`above`.

    Args:
        metric: (B, N, D), what similarity (the cosine) is taken of.
        threshold: (1,).
        there: (B, N), which tokens count; the others are never merged.
        num_prefix: tokens at the front that are never merged.
        temperature: of the gradients.

    Returns:
        The token map (B, N, N), with gradients: in its diagonal, 0 for tokens that were merged.
    """
    metric = F.normalize(metric.float(), dim=-1)
    places = torch.arange(metric.shape[1], device=metric.device)
    even, odd = (places >= num_prefix) & (places % 2 == 0), (places >= num_prefix) & (places % 2 == 1)
    similarity = metric @ metric.transpose(1, 2)
    pairs = (even[:, None] & odd) & (there[..., None] & there[:, None])  # (B, N, N)
    best, match = similarity.masked_fill(~pairs, -torch.inf).max(dim=-1)
    merged = above(best, threshold, temperature)[..., None]
    return (1 - merged) * one_hot(places, len(places)) + merged * one_hot(match, len(places))
