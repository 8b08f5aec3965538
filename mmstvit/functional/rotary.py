"""Rotary positions: queries and keys are rotated by angles of their places, in each layer (RoPE, arXiv 2104.09864)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import full_precision
from .reduction import Reduction, merge_weighted


class Rotary(NamedTuple):
    """The rotations of tokens, the same for all heads.

    Attributes:
        sin: (B or 1, N, D), of D channels of a head, each angle twice.
        cos: the same shape.
        interleaved: whether channels 2i and 2i + 1 are rotated together, or i and i + D / 2.
    """

    sin: Tensor
    cos: Tensor
    interleaved: bool

    def with_prefix(self, num_prefix: int) -> 'Rotary':
        """Add tokens at the front that have no place: they are rotated by nothing."""
        sin = F.pad(self.sin, (0, 0, num_prefix, 0))
        return self._replace(sin=sin, cos=F.pad(self.cos, (0, 0, num_prefix, 0), value=1))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate queries or keys (B, heads, N, D)."""
        if self.interleaved:
            turned = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
        else:
            first, second = x.chunk(2, dim=-1)
            turned = torch.cat((-second, first), dim=-1)
        return (x * self.cos[:, None] + turned * self.sin[:, None]).to(x.dtype)

    def reduced(self, reduction: Reduction, size: Tensor | None, batch: int) -> 'Rotary':
        """Return the rotations of reduced tokens: the mean over the patches that each stands for.

        So a key that patches share becomes the mean of what it was at their places.

        Args:
            reduction: which tokens become one.
            size: (B, N, 1), patches that a token stands for; ``None`` for one each.
            batch: images B.
        """
        both = torch.cat((self.sin, self.cos), dim=-1).expand(batch, -1, -1)
        with full_precision(both):
            mean, _ = merge_weighted(reduction, both, size)
        sin, cos = mean.nan_to_num().chunk(2, dim=-1)  # places that are empty stand for no patch
        return self._replace(sin=sin, cos=cos)
