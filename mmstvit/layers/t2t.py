"""The tokens-to-token module of T2T-ViT."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor

from ..functional.precision import full_precision
from .block import Mlp
from .embed import check_axes

T2T_TYPES = ('transformer', 'performer')

# Kernel, stride and padding of the three soft splits: stride 16 in all.
_SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))


def soft_split(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Soft split: unfold overlapping neighbourhoods, (B, C, H, W) -> (B, H', W', C kernel kernel).

    The channels come in the order (channel, kernel row, kernel column).
    """
    # One copy; F.unfold brings the channels before the tokens, and everything after it wants them behind.
    windows = F.pad(x, [padding] * 4).unfold(2, kernel, stride).unfold(3, kernel, stride)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(3)


class SoftmaxTokens(nn.Module):
    """Single-head attention whose shortcut is the value, since input and output widths differ.

    Args:
        in_channels: width of the joined tokens.
        embed_dims: width C of what comes out.
    """

    def __init__(self, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        # Of the input's width and not of the head's: the published weights were trained so.
        self.scale = in_channels**-0.5
        self.qkv = nn.Linear(in_channels, 3 * embed_dims, bias=False)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, in_channels) -> (B, N, C)."""
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, dim=-1)  # one head
        return (v + self.proj(F.scaled_dot_product_attention(q, k, v, scale=self.scale))).squeeze(1)


class PerformerTokens(nn.Module):
    """Performer attention (positive random features) whose shortcut is the value.

    Choromanski et al., "Rethinking Attention with Performers", as T2T-ViT uses it: with
    ``phi(u) = exp(w u - |u|^2 / 2) / sqrt(m)`` of m random features w, the output for a query q is
    phi(q) (sum phi(k) v) / (phi(q) sum phi(k) + 1e-8). The features are drawn once, not trained, and saved.

    Args:
        in_channels: width of the joined tokens.
        embed_dims: width C of what comes out.
    """

    epsilon = 1e-8

    features: Tensor

    def __init__(self, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(in_channels, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.drop = nn.Dropout(0.1)
        number = embed_dims // 2
        self.register_buffer('features', nn.init.orthogonal_(torch.empty(number, embed_dims)) * number**0.5)

    def _exponents(self, u: Tensor) -> Tensor:
        return F.linear(u, self.features.float()) - u.square().sum(dim=-1, keepdim=True) / 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, in_channels) -> (B, N, C)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        # In half precision the exponentials overflow and the normaliser's epsilon is zero.
        with full_precision(x):
            q, k, value = self._exponents(q.float()), self._exponents(k.float()), v.float()
            # The largest of each is taken out: it cancels, but from the epsilon, which it divides.
            of_q, of_k = q.amax(dim=-1, keepdim=True).detach(), k.amax(dim=(1, 2), keepdim=True).detach()
            q, k = (q - of_q).exp(), (k - of_k).exp()
            epsilon = (self.epsilon * q.shape[-1] * (-of_q - of_k).exp()).clamp(max=1e30)
            normaliser = q @ k.sum(dim=1).unsqueeze(-1) + epsilon
            y = (q @ (k.transpose(1, 2) @ value)) / normaliser
        return v + self.drop(self.proj(y.to(v.dtype)))


class TokensLayer(nn.Module):
    """One layer of the tokens-to-token module: attention to another width, then an MLP.

    Args:
        in_channels: width of the joined tokens.
        embed_dims: width C of what comes out; the MLP's hidden width too.
        t2t_type: ``'transformer'`` or ``'performer'``.
        norm_cfg: the norm layers.
    """

    def __init__(self, in_channels: int, embed_dims: int, t2t_type: str, norm_cfg: dict) -> None:
        super().__init__()
        performer = t2t_type == 'performer'
        self.norm1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.attn = (PerformerTokens if performer else SoftmaxTokens)(in_channels, embed_dims)
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.mlp = Mlp(embed_dims, embed_dims)
        self.drop = nn.Dropout(0.1 if performer else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, in_channels) -> (B, N, C)."""
        x = self.attn(self.norm1(x))
        return x + self.drop(self.mlp(self.norm2(x)))


class T2TModule(nn.Module):
    """The tokenizer of T2T-ViT (arXiv 2101.11986), section 3.1: soft split, layer, soft split, layer, soft split.

    Args:
        in_channels: channels of the image.
        embed_dims: width of the tokens that come out.
        token_dims: width of the tokens inside.
        t2t_type: of the layers, ``'transformer'`` or ``'performer'``.
        norm_cfg: the norm layers.

    Raises:
        ValueError: an unknown type.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        token_dims: int = 64,
        t2t_type: str = 'transformer',
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        if t2t_type not in T2T_TYPES:
            raise ValueError(f't2t_type={t2t_type!r} is unknown, choose from {T2T_TYPES}')
        norm_cfg = norm_cfg or dict(type='LN', eps=1e-5)
        first, second, third = (kernel**2 for kernel, _, _ in _SPLITS)
        self.attention1 = TokensLayer(in_channels * first, token_dims, t2t_type, norm_cfg)
        self.attention2 = TokensLayer(token_dims * second, token_dims, t2t_type, norm_cfg)
        self.projection = nn.Linear(token_dims * third, embed_dims)

    def grid_of(self, size: Sequence[int]) -> tuple[int, ...]:
        """The token grid of an image of ``size`` pixels."""
        for kernel, stride, padding in _SPLITS:
            size = [(n + 2 * padding - kernel) // stride + 1 for n in size]
        return tuple(size)

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, *size) -> (B, *grid, C).

        Raises:
            ValueError: the input is no batch of images.
        """
        check_axes(image, 2)
        x = image
        for layer, split in zip((self.attention1, self.attention2), _SPLITS):
            x = soft_split(x, *split)
            x = layer(x.flatten(1, 2)).transpose(1, 2).unflatten(2, x.shape[1:3])  # (B, N, C) -> (B, C, H, W)
        return self.projection(soft_split(x, *_SPLITS[-1]))
