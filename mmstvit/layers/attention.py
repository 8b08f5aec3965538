"""Multi-head attention: self- and cross-attention, global or in windows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor

from ..functional.attention import attend, split_heads
from ..functional.rotary import Rotary
from ..functional.windows import Keys, Size, crop_to, pad_to, partition, reverse
from .caching import cached


class Windows(NamedTuple):
    """Window partition of a token grid after a cyclic shift, with its inverse.

    Attributes:
        grid: tokens along each axis.
        window: tokens of a window along each axis.
        counts: windows along each axis; the end of the grid is padded with zeros.
        shift: tokens along each axis by which the padded grid is rolled towards its origin first.
    """

    grid: Size
    window: Size
    counts: Size
    shift: Size

    def split(self, x: Tensor) -> Tensor:
        """(B, *grid, C) -> (B, G, n, C)."""
        if any(self.shift):
            x = pad_to(x, [n * w for n, w in zip(self.counts, self.window)])
            x = x.roll([-s for s in self.shift], list(range(1, 1 + len(self.shift))))
        return partition(x, self.window, self.counts)

    def merge(self, x: Tensor) -> Tensor:
        """(B, G, n, C) -> (B, *grid, C)."""
        if not any(self.shift):
            return reverse(x, self.window, self.counts, self.grid)
        padded = [n * w for n, w in zip(self.counts, self.window)]
        x = reverse(x, self.window, self.counts, padded)
        x = x.roll(self.shift, list(range(1, 1 + len(self.shift))))
        return crop_to(x, self.grid)


class AttentionLayout(NamedTuple):
    """Which keys each query attends to; built once per grid and shared by layers.

    Attributes:
        windows: cuts the queries; ``None`` where they come in groups (B, G, n, C) or are one group.
        keys: how each part of the context is brought to the groups; ``None`` where a part is seen as a whole.
        bias: added to the logits (groups, 1, queries, keys), over all parts; ``None`` for nothing.
        groups: into how many groups the queries are joined, ``None`` to leave them.
        rotary: rotations of queries and keys, of self-attention in one group; ``None`` for none.
    """

    windows: Windows | None = None
    keys: tuple[Keys | None, ...] = ()
    bias: Tensor | None = None
    groups: int | None = None
    rotary: Rotary | None = None

    def arrange(self, context: Sequence[Tensor], groups: int) -> Tensor:
        """Arrange parts of the context (B, ..., C) as the keys of each group: (B, groups or 1, keys, C)."""
        keys = self.keys or (None,) * len(context)
        parts = [
            part.flatten(1, -2).unsqueeze(1) if how is None else how.arrange(part)
            for part, how in zip(context, keys, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat([p.expand(-1, groups, -1, -1) for p in parts], dim=2)


@cached(32)
def relative_position_index(table: Size, window: Size) -> Tensor:
    """Return the index into the bias table for each pair of tokens in a window, (n, n), as in Swin and Video Swin.

    Args:
        table: tokens along each axis of the window that the table is made for.
        window: the same of the window at hand, which may be smaller.
    """
    # On the CPU, whatever the default device: what is kept must not be of the meta device.
    coords = torch.stack(torch.meshgrid(*(torch.arange(w, device='cpu') for w in window), indexing='ij')).flatten(1)
    relative = coords[:, :, None] - coords[:, None]  # (rank, n, n)
    index = torch.zeros_like(relative[0])
    for w, difference in zip(table, relative):
        index = index * (2 * w - 1) + difference + w - 1
    return index


@cached(64)
def _index_on(table: Size, window: Size, device: torch.device) -> Tensor:
    # A copy from the CPU in each layer would make a GPU wait, and cannot be captured in a CUDA graph.
    return relative_position_index(table, window).to(device)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention.

    One fused ``qkv`` projection serves both uses: with no context it projects all three in one product; with a
    context, its first third projects the query and the other two thirds the context. An ordinary DeiT or Swin layer
    therefore fits into a layer that generates or recovers tokens without touching its weights. Each token is projected
    once, before keys and values are brought to the windows that see them.

    Args:
        embed_dims: channels C of the tokens.
        num_heads: attention heads; must divide ``embed_dims``.
        qkv_bias: whether the projections of query, key and value have a bias.
        attn_drop_rate: dropout of the attention weights, in training.
        proj_drop_rate: dropout of the output, in training.
        relative_window: tokens along each axis of a window with a learned relative position bias (Swin), for
            self-attention in windows of at most that size; ``None`` for no such bias.
        qk_norm_cfg: the norm layer of queries and keys, over the channels of each head; ``None`` for none.

    Raises:
        ValueError: ``embed_dims`` is no multiple of ``num_heads``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        relative_window: Size | None = None,
        qk_norm_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims={embed_dims} is not a multiple of num_heads={num_heads}')
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop_rate)
        self.q_norm = self.k_norm = None
        if qk_norm_cfg is not None:
            self.q_norm, self.k_norm = (build_norm_layer(qk_norm_cfg, embed_dims // num_heads)[1] for _ in range(2))
        self.relative_window = relative_window
        self.relative_position_bias_table = None
        if relative_window is not None:
            rows = math.prod(2 * w - 1 for w in relative_window)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))
            trunc_normal_(self.relative_position_bias_table, std=0.02)

    def _project(self, tokens: Tensor, rows: slice) -> Tensor:
        bias = None if self.qkv.bias is None else self.qkv.bias[rows]
        return F.linear(tokens, self.qkv.weight[rows], bias)

    def _bias(self, layout: AttentionLayout, queries: Tensor) -> Tensor | None:
        """Return mask plus relative position bias, (groups or 1, heads or 1, n, keys), in the queries' dtype."""
        bias = layout.bias
        if self.relative_position_bias_table is not None and self.relative_window is not None:
            window = self.relative_window if layout.windows is None else layout.windows.window
            index = _index_on(self.relative_window, window, queries.device)
            relative = self.relative_position_bias_table[index].permute(2, 0, 1)[None]  # (1, heads, n, n)
            bias = relative if bias is None else bias + relative
        return None if bias is None else bias.to(queries.dtype)

    def _prepare(
        self,
        query: Tensor,
        context: Sequence[Tensor] | None,
        layout: AttentionLayout,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, torch.Size]:
        """Return q, k, v split into heads, the bias of the logits, and the shape of the partitioned query."""
        if context is not None:
            query = self._project(query, slice(0, self.embed_dims))
        x = query if layout.windows is None else layout.windows.split(query)
        shape = x.shape
        if layout.groups is not None or x.dim() != 4:
            x = x.flatten(1, -2).unflatten(1, (layout.groups or 1, -1))
        if context is None:
            q, k, v = split_heads(self.qkv(x).flatten(0, 1), self.num_heads)
        else:
            kv = [self._project(part, slice(self.embed_dims, None)) for part in context]
            (q,) = split_heads(x.flatten(0, 1), self.num_heads, 1)
            k, v = split_heads(layout.arrange(kv, x.shape[1]).flatten(0, 1), self.num_heads, 2)
        bias = self._bias(layout, q)
        if bias is not None and bias.shape[0] > 1 and shape[0] > 1:
            bias = bias.repeat(shape[0], 1, 1, 1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if layout.rotary is not None:
            q, k = layout.rotary.rotate(q), layout.rotary.rotate(k)
        return q, k, v, bias, shape

    def weights(
        self, query: Tensor, context: Sequence[Tensor] | None = None, layout: AttentionLayout | None = None
    ) -> Tensor:
        """Return the attention weights of :meth:`forward`, whose fused kernel never materialises them.

        Args:
            query: as in :meth:`forward`.
            context: as in :meth:`forward`.
            layout: as in :meth:`forward`.

        Returns:
            ``(B, groups, heads, queries, keys)``, without dropout; each row sums to 1. Keys are in the order of
            :meth:`AttentionLayout.arrange`.
        """
        q, k, _, bias, shape = self._prepare(query, context, layout or AttentionLayout())
        logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if bias is not None:
            logits = logits + bias
        return logits.softmax(dim=-1).unflatten(0, (shape[0], -1))

    def forward(
        self,
        query: Tensor,
        context: Sequence[Tensor] | None = None,
        layout: AttentionLayout | None = None,
        key_bias: Tensor | None = None,
        return_qkv: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Let ``query`` attend to the parts of ``context``, or to itself.

        Args:
            query: ``(B, ..., C)``, any axes between; cut into windows or joined to groups as ``layout`` says.
            context: parts ``(B, ..., C)``, or ``None`` for self-attention within each group.
            layout: who attends to whom; ``None`` for all to all.
            key_bias: ``(B, keys)``, added to the logits of each key, where there is one group.
            return_qkv: whether queries, keys and values are returned too.

        Returns:
            The shape of ``query``; with ``return_qkv`` also queries, keys and values, each
            ``(B groups, heads, tokens, C / heads)``.
        """
        layout = layout or AttentionLayout()
        q, k, v, bias, shape = self._prepare(query, context, layout)
        out = attend(q, k, v, bias, key_bias, self.attn_drop_rate if self.training else 0.0)
        out = out.transpose(1, 2).reshape(shape)  # (B G, heads, n, C / heads) -> the shape of the cut query
        if layout.windows is not None:
            out = layout.windows.merge(out)
        out = self.proj_drop(self.proj(out))
        return (out, (q, k, v)) if return_qkv else out
