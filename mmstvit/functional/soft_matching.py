"""Matchings that gradients go through: what training puts in the place of a choice."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .matching import bipartite_soft_matching, interleave
from .reduction import Reduction


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
    share = torch.cat((prefix, interleave(*((own, odd_rows) if even_first else (odd_rows, own)))), dim=1)

    def merge(x: Tensor) -> Tensor:
        return share.transpose(1, 2).to(x.dtype) @ x

    def unmerge(x: Tensor) -> Tensor:
        return share.to(x.dtype) @ x

    return Reduction(merge, unmerge)
