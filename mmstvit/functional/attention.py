"""Attention in which keys weigh differently, in the ways that give the same numbers.

"Token Merging", arXiv 2210.09461, equation 1: ``softmax(q k^T / sqrt(d) + log s)``, where s is the number of patches
that a key stands for. As a mask it goes with every kernel but the flash kernel of GPUs, which takes none.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

WAYS = ('mask', 'column', 'values')

# The way on each kind of device in half precision; in float32 there is no flash kernel, and elsewhere it is the mask.
HALF_PRECISION = {'cuda': 'mask'}

_ALIGNED = 8  # channels of a head come in multiples of it in the flash kernel
_forced: list[str] = []


@contextlib.contextmanager
def proportional_by(way: str) -> Iterator[None]:
    """Let all proportional attention be computed in one way, to compare them.

    Args:
        way: one of ``WAYS``.

    Raises:
        ValueError: there is no such way.
    """
    if way not in WAYS:
        raise ValueError(f'way={way!r} is unknown, choose from {WAYS}')
    _forced.append(way)
    try:
        yield
    finally:
        _forced.pop()


def way_for(q: Tensor) -> str:
    """Return the way in which proportional attention is computed for such queries."""
    if _forced:
        return _forced[-1]
    half = q.dtype in (torch.float16, torch.bfloat16)
    return HALF_PRECISION.get(q.device.type, 'mask') if half else 'mask'


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    key_bias: Tensor | None = None,
    dropout: float = 0.0,
    way: str | None = None,
) -> Tensor:
    """Scaled dot-product attention by PyTorch's fused kernels, with a bias of each key.

    The ways are equal but for rounding: ``'mask'`` adds the bias to the logits; ``'column'`` appends it to the keys and
    1 to the queries, so that their product has it; ``'values'`` multiplies the values by the weights ``exp(key_bias)``
    and divides by the sum of them, which an appended column of the values gathers.

    Args:
        q: queries (B, heads, N, D).
        k: keys (B, heads, M, D).
        v: values (B, heads, M, D).
        bias: added to the logits, broadcast to (B, heads, N, M); the only way is then the mask.
        key_bias: (B, M), added to the logits of each key, -inf for one that is not seen.
        dropout: of the attention weights; ``'values'`` is not for it, and the mask is taken.
        way: one of ``WAYS``, by default :func:`way_for` the queries.

    Returns:
        (B, heads, N, D).
    """
    if key_bias is None:
        return F.scaled_dot_product_attention(q, k, v, bias, dropout)
    way = way or way_for(q)
    if bias is not None or way == 'mask' or (way == 'values' and dropout):
        key_bias = key_bias[:, None, None].to(q.dtype)  # (B, M) -> (B, 1, 1, M)
        return F.scaled_dot_product_attention(q, k, v, key_bias if bias is None else bias + key_bias, dropout)
    width, scale = q.shape[-1], q.shape[-1] ** -0.5
    more = _ALIGNED - width % _ALIGNED  # at least one
    key_bias = key_bias[:, None, :, None].to(q.dtype).expand(*k.shape[:3], 1)
    if way == 'column':
        # Zeros behind the column; the scale applies to it too, and is taken out.
        q = F.pad(torch.cat((q, torch.ones_like(q[..., :1])), dim=-1), (0, more - 1))
        k = F.pad(torch.cat((k, key_bias / scale), dim=-1), (0, more - 1))
        return F.scaled_dot_product_attention(q, k, F.pad(v, (0, more)), None, dropout, scale=scale)[..., :width]
    weight = key_bias.exp()
    q, k = F.pad(q, (0, more)), F.pad(k, (0, more))
    v = F.pad(torch.cat((v * weight, weight), dim=-1), (0, more - 1))
    out = F.scaled_dot_product_attention(q, k, v, scale=scale)
    return out[..., :width] / out[..., width : width + 1]
