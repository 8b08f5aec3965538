"""Simple feature pyramid for backbones with a single resolution."""

from collections.abc import Sequence

import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from ...registry import MODELS

# Strides of the levels that are made of the map; further ones are subsampled from the last.
_STRIDES = (4, 8, 16, 32)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps of strides 4, 8, 16, 32 from one map of stride 16.

    Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet, arXiv 2203.16527),
    section 3: transposed convolutions to the finer levels, maximum pooling to the coarser one, then a 1 x 1 and a 3 x 3
    convolution on each.

    Args:
        in_channels: channels C of the map; a multiple of 4.
        out_channels: channels of each level.
        num_outs: levels, 4 or more; those after the fourth are every second token of the one before.
        init_cfg: initialisation, by default as mmdet's FPN.

    Raises:
        ValueError: a number that does not fit.
    """

    def __init__(
        self, in_channels: int, out_channels: int = 256, num_outs: int = 5, init_cfg: dict | list | None = None
    ) -> None:
        super().__init__(init_cfg or dict(type='Xavier', layer=['Conv2d', 'ConvTranspose2d'], distribution='uniform'))
        if in_channels % 4:
            raise ValueError(f'in_channels={in_channels} must be a multiple of 4: the finest level has a quarter of it')
        if num_outs < len(_STRIDES):
            raise ValueError(f'num_outs={num_outs} must be at least {len(_STRIDES)}, for the strides {_STRIDES}')
        self.in_channels = in_channels
        self.num_outs = num_outs
        half, quarter = in_channels // 2, in_channels // 4
        resample = (
            nn.Sequential(
                nn.ConvTranspose2d(in_channels, half, 2, stride=2),
                ChannelNorm(half, eps=1e-6),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            ),
            nn.ConvTranspose2d(in_channels, half, 2, stride=2),
            nn.Identity(),
            nn.MaxPool2d(2, ceil_mode=True),  # a single row or column gives one, not none
        )
        self.levels = nn.ModuleList(
            nn.Sequential(
                level,
                nn.Conv2d(channels, out_channels, 1, bias=False),
                ChannelNorm(out_channels, eps=1e-6),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                ChannelNorm(out_channels, eps=1e-6),
            )
            for level, channels in zip(resample, (quarter, half, in_channels, in_channels))
        )

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the levels of the pyramid.

        Args:
            inputs: a map (B, C, H, W) of stride 16, alone or as the only one of a sequence.

        Returns:
            ``num_outs`` maps, (B, out_channels, 4 H, 4 W) first, each half the size of the one before, rounded up.

        Raises:
            ValueError: there are several maps, or the map has not ``in_channels``.
        """
        maps = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if len(maps) != 1 or maps[0].dim() != 4 or maps[0].shape[1] != self.in_channels:
            shapes = [tuple(m.shape) for m in maps]
            raise ValueError(f'SimpleFeaturePyramid takes one map (B, {self.in_channels}, H, W), got {shapes}')
        outs = [level(maps[0]).contiguous() for level in self.levels]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
