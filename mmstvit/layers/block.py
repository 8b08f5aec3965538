"""The pre-norm transformer block that every backbone uses."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn as nn
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..functional.windows import Size
from .attention import Attention, AttentionLayout

# A CPU computes the MLP of many tokens in parts of this many hidden values (4 MiB), which stay in its cache, and whose
# memory is not handed back to the system each time: of 60,800 tokens with 96 channels in half the time.
CACHED_VALUES = 2**20


class Mlp(nn.Module):
    """Linear, GELU (its erf form), linear; channels last, any leading axes."""

    def __init__(self, embed_dims: int, feedforward_channels: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, feedforward_channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(feedforward_channels, embed_dims)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        if x.is_cpu and not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()):
            tokens = x.flatten(0, -2)
            values = len(tokens) * self.fc1.out_features
            if values > 4 * CACHED_VALUES:
                parts = tokens.chunk(-(-values // CACHED_VALUES))
                return torch.cat([self._forward(part) for part in parts]).view_as(x)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP, each with optional LayerScale and stochastic depth.

    ``block(x)`` is self-attention; ``block(x, context)`` lets ``x`` query the parts of ``context``. Semantic token
    generation (the tokens query the image) and recovery (the image queries the tokens) are this block with the
    arguments swapped. One norm serves query and context, as in the STViT paper (arXiv 2303.08685), section 3.

    Args:
        embed_dims: channels C of the tokens.
        num_heads: attention heads.
        feedforward_channels: hidden width of the MLP.
        qkv_bias: whether the projections of query, key and value have a bias.
        drop_rate: dropout after the output projection and in the MLP.
        attn_drop_rate: dropout of the attention weights.
        drop_path_rate: probability that a sample skips a branch (stochastic depth), in training.
        layer_scale_init_value: initial value of LayerScale; 0 means no LayerScale.
        qk_norm: whether queries and keys are normed in each head.
        norm_cfg: the norm layer, as in all OpenMMLab toolboxes.
        relative_window: window of a learned relative position bias, see :class:`.Attention`.
        with_cp: recompute activations in the backward pass to save memory.
    """

    attention_type = Attention
    mlp_type = Mlp

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.0,
        norm_cfg: dict | None = None,
        relative_window: Size | None = None,
        with_cp: bool = False,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        norm_cfg = norm_cfg or dict(type='LN', eps=1e-6)
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = self.attention_type(
            embed_dims, num_heads, qkv_bias, attn_drop_rate, drop_rate, relative_window, norm_cfg if qk_norm else None
        )
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.mlp = self.mlp_type(embed_dims, feedforward_channels, drop_rate)
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate={drop_path_rate} must be at least 0 and less than 1')
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.layer_scale_1 = self.layer_scale_2 = None
        if layer_scale_init_value:
            self.layer_scale_1 = nn.Parameter(torch.full((embed_dims,), float(layer_scale_init_value)))
            self.layer_scale_2 = nn.Parameter(torch.full((embed_dims,), float(layer_scale_init_value)))

    def _branch(self, out: Tensor, scale: Tensor | None) -> Tensor:
        return self.drop_path(out if scale is None else out * scale)

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Any:
        """Update ``x`` from the parts of ``context``, or from itself.

        Args:
            x: tokens ``(B, ..., C)``.
            context: parts ``(B, ..., C)`` of what ``x`` attends to, ``x`` itself among them if it is to; ``None`` for
                self-attention.
            layout: who attends to whom; ``None`` for all to all.
            shortcut: whether the attention's output is added to ``x``; else it takes its place, and no sample skips it.
            key_bias: ``(B, keys)``, added to the logits of each key.
            reduce: called between attention and MLP as ``reduce(x, q, k, v)``, with queries, keys and values
                ``(B, heads, tokens, C / heads)``; returns the tokens that the MLP gets, and anything else.

        Returns:
            The shape of ``x``; with ``reduce``, that of its tokens, and what else it returned.
        """
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(self._forward, x, *args, use_reentrant=False, **options)
        return self._forward(x, *args, **options)

    def _forward(
        self,
        x: Tensor,
        context: Sequence[Tensor] | None = None,
        layout: AttentionLayout | None = None,
        shortcut: bool = True,
        key_bias: Tensor | None = None,
        reduce: Callable[..., tuple[Tensor, Any]] | None = None,
    ) -> Any:
        y, context = self._normed(x, context)
        out = self.attn(y, context, layout, key_bias, return_qkv=reduce is not None)
        out, qkv = (out, ()) if reduce is None else out
        if shortcut:
            x = x + self._branch(out, self.layer_scale_1)
        else:
            x = out if self.layer_scale_1 is None else out * self.layer_scale_1
        reduction = None
        if reduce is not None:
            x, reduction = reduce(x, *qkv)
        x = x + self._branch(self.mlp(self.norm2(x)), self.layer_scale_2)
        return x if reduce is None else (x, reduction)

    def _normed(self, x: Tensor, context: Sequence[Tensor] | None) -> tuple[Tensor, list[Tensor] | None]:
        y = self.norm1(x)
        return y, None if context is None else [y if part is x else self.norm1(part) for part in context]

    def attention_weights(self, x: Tensor, context: Sequence[Tensor], layout: AttentionLayout | None) -> Tensor:
        """Return the weights of the attention in :meth:`forward`, (B, groups, queries, keys), the mean over heads."""
        return self.attn.weights(*self._normed(x, context), layout).float().mean(2)
