"""Multi-head attention, the only one of the package: self-attention and attention to a context share its weights' layout."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class Attention(nn.Module):
    """Multi-head scaled dot-product attention.

    One fused ``qkv`` projection serves both uses: with no context it projects all three in one product; with a
    context, its first third projects the query and the other two thirds the context. An ordinary DeiT or Swin layer
    therefore fits into a layer that generates or recovers tokens without touching its weights.

    Args:
        embed_dims: channels C of the tokens.
        num_heads: attention heads; must divide ``embed_dims``.
        qkv_bias: whether the projections of query, key and value have a bias.
        attn_drop_rate: dropout of the attention weights, in training.
        proj_drop_rate: dropout of the output, in training.

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

    def _project(self, tokens: Tensor, rows: slice) -> Tensor:
        bias = None if self.qkv.bias is None else self.qkv.bias[rows]
        return F.linear(tokens, self.qkv.weight[rows], bias)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, L, C) -> (B, heads, L, C / heads)

    def forward(self, query: Tensor, context: Tensor | None = None) -> Tensor:
        """Let ``query`` (B, N, C) attend to ``context`` (B, M, C), or to itself. Returns (B, N, C)."""
        if context is None:
            q, k, v = self.qkv(query).chunk(3, dim=-1)
        else:
            q = self._project(query, slice(0, self.embed_dims))
            k, v = self._project(context, slice(self.embed_dims, None)).chunk(2, dim=-1)
        out = F.scaled_dot_product_attention(
            self._heads(q), self._heads(k), self._heads(v), dropout_p=self.attn_drop_rate if self.training else 0.0
        )
        out = out.transpose(1, 2).flatten(2)  # (B, heads, N, C / heads) -> (B, N, C)
        return self.proj_drop(self.proj(out))
