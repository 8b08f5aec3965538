"""Transformer layers with ideas from convolutional networks, as in T2T-ViT (arXiv 2101.11986, section 3.2)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .attention import Attention
from .block import Mlp, TransformerBlock


def _scales(rows: int, channels: int) -> nn.Parameter:
    """Return per-channel scales, initialised like a depth-wise 1 x 1 convolution."""
    return nn.Parameter(torch.empty(rows, channels).uniform_(-1, 1))


class GatedLinear(nn.Linear):
    """Linear layer followed by squeeze-and-excitation over the tokens.

    With y the linear layer's output, it is y * sigmoid(W2 relu(W1 mean(y))), without biases.

    Args:
        embed_dims: channels C, a multiple of 16, by which W1 divides them.

    Raises:
        ValueError: ``embed_dims`` is no such multiple.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__(embed_dims, embed_dims)
        if embed_dims % 16:
            raise ValueError(f'embed_dims={embed_dims} is not a multiple of 16, as squeeze-excitation needs')
        self.squeeze = nn.Linear(embed_dims, embed_dims // 16, bias=False)
        self.excite = nn.Linear(embed_dims // 16, embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ..., C)."""
        x = super().forward(x)
        gate = self.excite(self.squeeze(x.mean(dim=tuple(range(1, x.dim() - 1)), keepdim=True)).relu())
        return x * gate.sigmoid()


class GatedAttention(Attention):
    """Attention with squeeze-and-excitation after the output projection, over the query tokens."""

    def __init__(self, embed_dims: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(embed_dims, *args, **kwargs)
        self.proj = GatedLinear(embed_dims)


class GhostLinear(nn.Linear):
    """QKV projection at half the cost: the second half of each output is the first half, scaled per channel.

    Args:
        embed_dims: channels C, an even number.
        bias: whether the first halves have a bias.

    Raises:
        ValueError: ``embed_dims`` is odd.
    """

    def __init__(self, embed_dims: int, bias: bool) -> None:
        if embed_dims % 2:
            raise ValueError(f'embed_dims={embed_dims} is odd, and the ghost design halves it')
        super().__init__(embed_dims, 3 * embed_dims // 2, bias)
        self.scale = _scales(3, embed_dims // 2)

    def forward(self, x: Tensor, parts: slice = slice(None)) -> Tensor:
        """(..., C) -> (..., 3 C), or the requested parts of it: 0 query, 1 key, 2 value."""
        weight = self.weight.unflatten(0, (3, -1))[parts].flatten(0, 1)
        bias = None if self.bias is None else self.bias.unflatten(0, (3, -1))[parts].flatten()
        half = F.linear(x, weight, bias).unflatten(-1, (-1, self.scale.shape[-1]))  # (..., parts, C / 2)
        return torch.cat((half, half * self.scale[parts]), dim=-1).flatten(-2)


class GhostAttention(Attention):
    """Attention whose query, key and value are :class:`GhostLinear`."""

    def __init__(self, embed_dims: int, num_heads: int, qkv_bias: bool = True, *args: Any, **kwargs: Any) -> None:
        super().__init__(embed_dims, num_heads, qkv_bias, *args, **kwargs)
        self.qkv = GhostLinear(embed_dims, qkv_bias)

    def _project(self, tokens: Tensor, rows: slice) -> Tensor:
        # Rows of an ordinary projection: C for each of query, key and value.
        start, stop = (None if row is None else row // self.embed_dims for row in (rows.start, rows.stop))
        return self.qkv(tokens, slice(start, stop))


class GhostMlp(Mlp):
    """An MLP whose hidden layer of width 3 C is computed as one of C, h, and gelu of h scaled twice.

    Raises:
        ValueError: the hidden width is not three times ``embed_dims``.
    """

    def __init__(self, embed_dims: int, feedforward_channels: int, drop_rate: float = 0.0) -> None:
        if feedforward_channels != 3 * embed_dims:
            raise ValueError(
                f'feedforward_channels={feedforward_channels} must be three times embed_dims={embed_dims} in the ghost '
                'design'
            )
        super().__init__(embed_dims, feedforward_channels, drop_rate)
        self.fc1 = nn.Linear(embed_dims, embed_dims)
        self.scale = _scales(2, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        x = self.act(self.fc1(x))
        x = torch.cat((x, *(self.act(x * scale) for scale in self.scale)), dim=-1)
        return self.drop(self.fc2(self.drop(x)))


class GatedBlock(TransformerBlock):
    """The design ``'se'``, squeeze-excitation."""

    attention_type = GatedAttention


class GhostBlock(TransformerBlock):
    """The design ``'ghost'``: half of the features are cheap copies of the other half."""

    attention_type = GhostAttention
    mlp_type = GhostMlp


class DenseBlock(TransformerBlock):
    """The design ``'dense'``: what the layer adds is brought to a few channels and joined to its input.

    Args:
        embed_dims: channels C that come in.
        growth: channels that are joined to them.
        halve: whether a linear layer and GELU halve the width after that, between two groups of layers.
        **options: of :class:`.TransformerBlock`.
    """

    def __init__(self, embed_dims: int, *args: Any, growth: int, halve: bool, **options: Any) -> None:
        super().__init__(embed_dims, *args, **options)
        self.out_channels = embed_dims + growth
        self.grow = nn.Linear(embed_dims, growth)
        self.halve = None
        if halve:
            self.halve = nn.Linear(self.out_channels, self.out_channels // 2)
            self.out_channels //= 2

    def _forward(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        # (B, ..., C) -> (B, ..., out_channels), self-attention alone: a context has another width.
        x = torch.cat((x, self.grow(super()._forward(x, *args, **options))), dim=-1)
        return x if self.halve is None else F.gelu(self.halve(x))


_BLOCKS: dict[Any, type[TransformerBlock]] = {'se': GatedBlock, 'ghost': GhostBlock}
DESIGNS = (*_BLOCKS, 'dense')


def build_layers(
    design: dict | None, arch: dict, drop_path_rates: Sequence[float], **options: Any
) -> tuple[list[nn.Module], list[int]]:
    """Build the blocks of a plain transformer; return them with the output width of each.

    Args:
        design: ``None`` for ordinary layers, or a dict with ``type``: ``'se'`` (squeeze-excitation), ``'ghost'`` or
            ``'dense'``; the last with ``growth``, the channels that each layer joins to its input, and ``groups``, the
            layers of each group.
        arch: ``embed_dims``, ``num_heads`` and ``feedforward_channels``; where the width changes, the last grows in
            proportion.
        drop_path_rates: stochastic depth of each layer.
        **options: of :class:`.TransformerBlock`.

    Raises:
        ValueError: an unknown type, or sizes that do not fit.
    """
    width, heads, hidden = arch['embed_dims'], arch['num_heads'], arch['feedforward_channels']
    settings = dict(design or {})
    kind = settings.pop('type', None)
    if design is not None and kind not in DESIGNS:
        raise ValueError(f'design type {kind!r} is unknown, choose from {DESIGNS}')
    if kind == 'dense':
        dense = _dense_layers(width, heads, hidden, drop_path_rates, **settings, **options)
        return list(dense), [layer.out_channels for layer in dense]
    if settings:
        raise ValueError(f'design type {kind!r} has no option {" or ".join(settings)}')
    block = _BLOCKS.get(kind, TransformerBlock)
    layers = [block(width, heads, hidden, drop_path_rate=rate, **options) for rate in drop_path_rates]
    return list(layers), [width] * len(layers)


def _dense_layers(
    width: int,
    heads: int,
    hidden: int,
    drop_path_rates: Sequence[float],
    growth: int,
    groups: Sequence[int],
    **options: Any,
) -> list[DenseBlock]:
    if sum(groups) != len(drop_path_rates):
        raise ValueError(f'groups={tuple(groups)} of the dense design are not {len(drop_path_rates)} layers in all')
    # The last layer of each group but the last.
    halving = {sum(groups[:i]) - 1 for i in range(1, len(groups))}
    layers, channels = [], width
    for i, rate in enumerate(drop_path_rates):
        own: dict[str, Any] = dict(drop_path_rate=rate, growth=growth, halve=i in halving)
        layers.append(DenseBlock(channels, heads, hidden * channels // width, **own, **options))
        channels = layers[-1].out_channels
    return layers
