"""Scaled dot-product attention in which keys weigh differently."""

import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """Split a projection (B, N, parts C) into queries, keys and values: for each part (B, heads, N, C / heads)."""
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def add_key_bias(bias: Tensor | None, key_bias: Tensor | None) -> Tensor | None:
    """Add a bias of each key (B, M) to that of all logits, which is broadcast to (B, heads, N, M)."""
    if key_bias is None:
        return bias
    key_bias = key_bias[:, None, None]  # (B, M) -> (B, 1, 1, M)
    return key_bias if bias is None else bias + key_bias


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    key_bias: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention by PyTorch's fused kernels, with a bias of each key.

    The bias of "Token Merging", arXiv 2210.09461, equation 1, is ``log s``, where s is the number of patches that a key
    stands for. As a mask it rules the flash kernel of GPUs out, but every way round it was slower on one: a column
    appended to queries and keys, or values that are weighed.

    Args:
        q: queries (B, heads, N, D).
        k: keys (B, heads, M, D).
        v: values (B, heads, M, D).
        bias: added to the logits, broadcast to (B, heads, N, M).
        key_bias: (B, M), added to the logits of each key, -inf for one that is not seen.
        dropout: of the attention weights.
        scale: what the products of queries and keys are multiplied by, by default ``D ** -0.5``.

    Returns:
        (B, heads, N, D).
    """
    key_bias = None if key_bias is None else key_bias.to(q.dtype)
    bias = add_key_bias(bias, key_bias)
    return F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=scale)
