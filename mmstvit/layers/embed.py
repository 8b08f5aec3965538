"""Stems: what turns an image into a grid of tokens."""

from collections.abc import Sequence

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class PatchEmbed(nn.Module):
    """Split an image into patches and project each to a token.

    The right and bottom borders are padded with zeros to whole patches, so any image size is taken.

    Args:
        in_channels: channels of the image.
        embed_dims: channels C of the tokens.
        patch_size: size of a patch in pixels, ``(height, width)``.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch_size: Sequence[int]) -> None:
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.projection = nn.Conv2d(in_channels, embed_dims, self.patch_size, stride=self.patch_size)

    def grid_of(self, size: Sequence[int]) -> tuple[int, ...]:
        """The token grid of an image of ``size`` pixels."""
        return tuple(-(-s // p) for s, p in zip(size, self.patch_size, strict=True))

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, *size) -> (B, *grid, C)."""
        pads = [-s % p for s, p in zip(image.shape[2:], self.patch_size, strict=True)]
        if any(pads):
            image = F.pad(image, [n for pad in reversed(pads) for n in (0, pad)])
        return self.projection(image).movedim(1, -1)
