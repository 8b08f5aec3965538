"""Patch embedding, convolutional stem and patch merging, for images and clips."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor


def check_axes(image: Tensor, rank: int) -> None:
    """Refuse an input that is no batch of images, or of clips.

    Args:
        image: (B, channels, ...).
        rank: axes of an image, 2, or of a clip, 3.

    Raises:
        ValueError: it has other axes.
    """
    if image.dim() != 2 + rank:
        axes = 'frames, height, width' if rank == 3 else 'height, width'
        raise ValueError(f'the backbone takes (batch, channels, {axes}), got the shape {tuple(image.shape)}')


class PatchEmbed(nn.Module):
    """Split an image into patches, or a clip into tubelets, and project each to a token.

    The end of each axis is padded with zeros to whole patches, so any size is taken.

    Args:
        in_channels: channels of the image.
        embed_dims: channels C of the tokens.
        patch_size: size of a patch, ``(height, width)`` in pixels or ``(frames, height, width)``.
        norm_cfg: a norm layer after the projection, as Swin has it; ``None`` for none.
    """

    def __init__(
        self, in_channels: int, embed_dims: int, patch_size: Sequence[int], norm_cfg: dict | None = None
    ) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, embed_dims)[1] if norm_cfg else None
        self.patch_size = tuple(patch_size)
        conv = getattr(nn, f'Conv{len(self.patch_size)}d')
        self.projection = conv(in_channels, embed_dims, self.patch_size, stride=self.patch_size)

    def grid_of(self, size: Sequence[int]) -> tuple[int, ...]:
        """The token grid of an image of ``size`` pixels."""
        return tuple(-(-s // p) for s, p in zip(size, self.patch_size, strict=True))

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, *size) -> (B, *grid, C).

        Raises:
            ValueError: the input has not the axes of the patches.
        """
        check_axes(image, len(self.patch_size))
        pads = [-s % p for s, p in zip(image.shape[2:], self.patch_size)]
        if any(pads):
            image = F.pad(image, [n for pad in reversed(pads) for n in (0, pad)])
        x = self.projection(image).movedim(1, -1).contiguous()
        return x if self.norm is None else self.norm(x)


class ConvStem(nn.Module):
    """Convolutional stem: 3 x 3 convolutions of stride 2 with batch norm and Hardswish; STViT-R has two.

    Args:
        in_channels: channels of the image.
        embed_dims: channels C of the tokens; each convolution before the last has half the channels of the next.
        num_convs: convolutions of stride 2; the stride of the stem is 2 to the power of it.
        depth: convolutions at each resolution, the first of which has stride 2 and the others 1.

    Raises:
        ValueError: there would be no convolution.
    """

    def __init__(self, in_channels: int, embed_dims: int, num_convs: int = 2, depth: int = 1) -> None:
        super().__init__()
        if num_convs < 1 or depth < 1:
            raise ValueError(f'num_convs={num_convs} and depth={depth} must be at least 1')
        widths = [in_channels, *(embed_dims // 2 ** (num_convs - 1 - i) for i in range(num_convs))]
        layers = []
        for before, after in itertools.pairwise(widths):
            for channels, stride in ((before, 2), *[(after, 1)] * (depth - 1)):
                layers += [nn.Conv2d(channels, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.Hardswish()]
        self.stride = 2**num_convs
        self.layers = nn.Sequential(*layers)

    def grid_of(self, size: Sequence[int]) -> tuple[int, ...]:
        """The token grid of an image of ``size`` pixels."""
        return tuple(-(-s // self.stride) for s in size)

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, *size) -> (B, *grid, C); padded with zeros to a multiple of the stride first.

        Raises:
            ValueError: the input is no batch of images.
        """
        check_axes(image, 2)
        pads = [-s % self.stride for s in image.shape[2:]]
        if any(pads):
            image = F.pad(image, (0, pads[1], 0, pads[0]))
        # Channels last on the way too, as everything after it reads a token's channels together.
        x = image.contiguous(memory_format=torch.channels_last)
        x = self.layers(x) if self.training else self._folded(x)
        return x.movedim(1, -1).contiguous()

    def _folded(self, x: Tensor) -> Tensor:
        """Run the layers with batch norms folded into their convolutions, which saves a pass over the memory.

        The first, of few products a pixel, is left as it is: folded it would gain little, and change the rounding of
        all that follows by more than 1e-5.
        """
        x = self.layers[:3](x)
        for conv, norm, act in zip(*(self.layers[i::3] for i in (3, 4, 5)), strict=True):
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight = (conv.weight * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last)
            x = act(F.conv2d(x, weight, norm.bias - norm.running_mean * scale, conv.stride, conv.padding))
        return x


class PatchMerging(nn.Module):
    """Patch merging of Swin: concatenate 2 x 2 neighbours, normalise, project to 2 C; of a clip, frame by frame.

    The channels are joined in the order (row, column) = (0, 0), (1, 0), (0, 1), (1, 1) of Swin's authors.

    Args:
        embed_dims: channels C of the tokens.
        norm_cfg: the norm layer.
    """

    def __init__(self, embed_dims: int, norm_cfg: dict) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, 4 * embed_dims)[1]
        self.reduction = nn.Linear(4 * embed_dims, 2 * embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., H, W, C) -> (B, ..., ceil(H / 2), ceil(W / 2), 2 C); odd sizes are padded with zeros."""
        height, width = x.shape[-3:-1]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(-2, (-1, 2)).unflatten(-4, (-1, 2))  # (B, ..., H / 2, row, W / 2, column, C)
        x = x.movedim(-4, -2).flatten(-3)  # (B, ..., H / 2, W / 2, column row C)
        return self.reduction(self.norm(x))
