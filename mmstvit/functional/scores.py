"""Scores by which tokens are kept or dropped, and how tokens are sampled from them."""

import torch
from torch import Tensor


def class_attention(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the attention of the first token to all: one row of the map that the fused kernel never holds.

    Args:
        q: queries (B, heads, N, D).
        k: keys (B, heads, N, D).
        bias: added to the logits, broadcast to (B, heads, N).

    Returns:
        (B, heads, N) in float32, each row sums to 1.
    """
    return _attention(q[:, :, :1], k, None if bias is None else bias.unsqueeze(-2)).squeeze(2)


def attention_received(q: Tensor, k: Tensor, bias: Tensor | None = None, there: Tensor | None = None) -> Tensor:
    """Return the attention that each token gets from the others, the mean over heads and queries, times their number.

    Args:
        q: queries (B, heads, N, D).
        k: keys (B, heads, N, D).
        bias: added to the logits, broadcast to (B, heads, N, N).
        there: (B, N), which queries count; ``None`` for all.

    Returns:
        (B, N) in float32, 1 on average.
    """
    weights = _attention(q, k, bias).mean(dim=1)
    return weights.sum(dim=1) if there is None else (weights * there[..., None]).sum(dim=1)


def _attention(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    logits = (q @ k.transpose(-2, -1)).float() * q.shape[-1] ** -0.5
    return (logits if bias is None else logits + bias).softmax(dim=-1)


def sample_inverse(score: Tensor, num_samples: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sample tokens evenly in the cumulative sum of their scores, as in "Adaptive Token Sampling".

    arXiv 2111.15667, section 3.2: of K samples the k-th is the token whose cumulative score is nearest to
    ``(2 k - 1) / (2 K)``. A token that is sampled more than once counts once.

    Args:
        score: (B, N), not negative.
        num_samples: K.
        valid: (B, N), which tokens can be sampled.

    Returns:
        The tokens (B, K), ascending, and which of them are there for the first time (B, K).
    """
    cumulative = score.cumsum(dim=-1)
    cumulative = cumulative / cumulative[:, -1:]
    points = (2 * torch.arange(num_samples, device=score.device) + 1) / (2 * num_samples)
    distance = (cumulative[:, None] - points[:, None]).abs()  # (B, K, N)
    if valid is not None:
        distance = distance.masked_fill(~valid[:, None], torch.inf)
    chosen = distance.argmin(dim=-1)
    return chosen, torch.cat((torch.ones_like(chosen[:, :1]).bool(), chosen[:, 1:] != chosen[:, :-1]), dim=-1)


def place_numbers(count: int, seed: int, device: torch.device | None = None) -> Tensor:
    """Return one integer for each place, in no order that can be seen but always the same: a hash of place and seed.

    A random generator has a state, which compiled and exported graphs cannot have.

    Args:
        count: how many.
        seed: another one gives other numbers.
        device: where they are to be.
    """
    x = torch.arange(count, device=device) + 7919 * seed + 1
    for _ in range(4):
        x = x * (x + 48271) % 2147483647  # below 2^62, so nothing overflows
    return x
