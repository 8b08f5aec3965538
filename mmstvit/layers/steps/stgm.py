"""The semantic token generation module of STViT, and recovery of the image tokens (STViT-R)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor

from ...functional.position import resize_table
from ...functional.reduction import Reduction
from ...functional.windows import POOLING, Size
from ..attention import AttentionLayout
from ..layout import Context, TokenLayout
from ..options import axes_of
from ..tokens import Tokens
from .base import Network, SelfAttention, Step


class CenterConv(nn.Module):
    """A depth-wise 3 x 3 convolution of each window's first cluster centres, added to them.

    Args:
        embed_dims: channels C of the tokens.
        size: semantic tokens of a window along each axis.
    """

    def __init__(self, embed_dims: int, size: Size) -> None:
        super().__init__()
        self.size = size
        conv = getattr(nn, f'Conv{len(size)}d')
        self.proj = nn.Sequential(conv(embed_dims, embed_dims, 3, padding=1, groups=embed_dims))

    def forward(self, s: Tensor) -> Tensor:
        """(B, G, n, C) -> (B, G, n, C)."""
        x = s.flatten(0, 1).transpose(1, 2).unflatten(2, self.size)  # (B G, C, *size)
        return s + self.proj(x).flatten(2).transpose(1, 2).reshape(s.shape)


class TokenMapStep(Step):
    """A step in which semantic tokens and image tokens attend to each other.

    Attributes:
        role: what it does, in one word.
        recovers: whether image tokens query the semantic ones.
    """

    role: str
    recovers = False

    def operands(self, tokens: Tokens) -> tuple[TokenLayout, Tensor, Tensor, Any]:
        """Return the layout, the queries, the semantic tokens and the image tokens."""
        raise NotImplementedError

    def context(self, layout: TokenLayout, semantic: Tensor, image: Tensor) -> Context:
        """Return the parts of what the queries attend to, and who attends to whom."""
        raise NotImplementedError

    def token_map(self, block: nn.Module, tokens: Tokens) -> Tensor:
        """Return the attention weights between semantic tokens and image tokens, the mean over heads.

        They are computed beside the fused attention, which never holds them.

        Returns:
            ``(B, *cells, N)``, of each semantic token over the N image tokens; of recovery ``(B, *grid, M)``, of each
            image token over the M semantic tokens.
        """
        layout, query, *parts = self.operands(tokens)
        context, attention = self.context(layout, *parts)
        attention = attention or AttentionLayout()
        weights = block.attention_weights(query, context, attention)  # (B, groups, queries, keys)
        # The number of the token that each key is, counted from 1; 0 for those that are none.
        image = layout.image_from_grid(_numbers(layout.grid, query.device) * (not self.recovers))
        cells = layout.cells or ()
        semantic = layout.from_grid(_numbers(cells, query.device) * self.recovers)
        numbers, _ = self.context(layout, semantic, image)
        keys = attention.arrange(numbers, weights.shape[1])[..., 0].unsqueeze(2).expand_as(weights)
        count = math.prod(cells if self.recovers else layout.grid)
        weights = weights.new_zeros(*weights.shape[:3], count + 1).scatter_add_(-1, keys, weights)[..., 1:]
        if attention.windows is not None:
            weights = attention.windows.merge(weights.reshape(*attention.windows.split(query).shape[:-1], count))
        weights = weights.reshape(*query.shape[:-1], count)
        return layout.image_to_grid(weights) if self.recovers else layout.to_grid(weights)

    def reduction(self, block: nn.Module, tokens: Tokens) -> Reduction:
        """Return the token map as a reduction; nothing is computed before it is used."""

        def weights(x: Tensor) -> Tensor:
            prefix = tokens.layout.num_prefix
            rows = F.pad(self.token_map(block, tokens).flatten(1, -2).to(x.dtype), (prefix, 0, prefix, 0))
            rows[:, :prefix, :prefix] = torch.eye(prefix, device=x.device)
            return rows  # (B, M, N)

        def merge(x: Tensor) -> Tensor:
            return weights(x) @ x

        def unmerge(x: Tensor) -> Tensor:
            shares = weights(x).transpose(1, 2)
            return shares / shares.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny) @ x

        return Reduction(merge, unmerge)


def _numbers(grid: Size, device: torch.device) -> Tensor:
    """Return the cells of a grid numbered from 1, (1, *grid, 1)."""
    return torch.arange(1, math.prod(grid) + 1, device=device).reshape(1, *grid, 1)


class Generation(TokenMapStep):
    """Make semantic tokens: pooled image tokens gather what they stand for, ``block(P, context=[P, X])``.

    Args:
        embed_dims: channels C of the tokens.
        pooling: how the first cluster centres P are pooled, ``'max'`` or ``'avg'``.
        cells: semantic tokens of the whole image along each axis; ``None`` where the layout says it, by windows.
        shortcut: whether the block adds to P; else its attention's output takes the place of P.
        conv_size: semantic tokens of a window along each axis, for a :class:`CenterConv` of P; ``None`` for none.

    Raises:
        ValueError: an unknown pooling.
    """

    role = 'generate'

    def __init__(
        self,
        embed_dims: int,
        pooling: str = 'max',
        cells: Size | None = None,
        shortcut: bool = True,
        conv_size: Size | None = None,
    ) -> None:
        super().__init__()
        if pooling not in POOLING:
            raise ValueError(f'pooling={pooling!r} is unknown, choose from {POOLING}')
        self.pooling, self.cells, self.shortcut = pooling, cells, shortcut
        self.conv = None if conv_size is None else CenterConv(embed_dims, conv_size)

    def operands(self, tokens: Tokens) -> tuple[TokenLayout, Tensor, Tensor, Any]:
        layout: Any = tokens.layout
        layout = layout if self.cells is None else layout._replace(cells=self.cells)
        centers = layout.initial_centers(tokens.x, self.pooling)
        if self.conv is not None:
            centers = self.conv(centers)
        return layout, centers, centers, tokens.x

    def context(self, layout: TokenLayout, semantic: Tensor, image: Tensor) -> Context:
        return layout.generation(semantic, image)

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Turn image tokens into semantic tokens, and set the image tokens aside."""
        layout, query, *parts = self.operands(tokens)
        x = block(query, *self.context(layout, *parts), shortcut=self.shortcut)
        return Tokens(x, layout, image=tokens.x, trace=(self.reduction(block, tokens),))


class Refinement(TokenMapStep):
    """Let semantic tokens S1 look at the image once more: ``block(S1 + G, context=[S1, X])``.

    Args:
        embed_dims: channels C of the tokens.
        centers_grid: the grid of the learned global cluster centres G; ``None`` for no G.
    """

    role = 'refine'

    def __init__(self, embed_dims: int, centers_grid: Sequence[int] | None = None) -> None:
        super().__init__()
        self.global_centers = None
        if centers_grid is not None:
            self.global_centers = nn.Parameter(torch.zeros(1, *centers_grid, embed_dims))
            trunc_normal_(self.global_centers, std=0.02)

    def operands(self, tokens: Tokens) -> tuple[TokenLayout, Tensor, Tensor, Any]:
        query = tokens.x
        if self.global_centers is not None:
            query = query + tokens.layout.from_grid(resize_table(self.global_centers, tokens.layout.cells or ()))
        return tokens.layout, query, tokens.x, tokens.image

    def context(self, layout: TokenLayout, semantic: Tensor, image: Tensor) -> Context:
        return layout.refinement(semantic, image)

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Update the semantic tokens."""
        layout, query, *parts = self.operands(tokens)
        return tokens._replace(x=block(query, *self.context(layout, *parts)), trace=(self.reduction(block, tokens),))


class Recovery(TokenMapStep):
    """Give the image tokens back: they query the semantic tokens, ``block(X, context=[S])``."""

    role, recovers = 'recover', True

    def operands(self, tokens: Tokens) -> tuple[TokenLayout, Tensor, Tensor, Any]:
        image: Any = tokens.image
        return tokens.layout, tokens.layout.image_queries(tokens.x, image), tokens.x, image

    def context(self, layout: TokenLayout, semantic: Tensor, image: Tensor) -> Context:
        return layout.recovery(semantic)

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Turn the semantic tokens into image tokens again."""
        layout, query, *parts = self.operands(tokens)
        return Tokens(block(query, *self.context(layout, *parts)), layout)


def stgm(
    network: Network,
    grid: int | Sequence[int] = (4, 4),
    layer: int = 4,
    pooling: str = 'max',
    use_global: bool = True,
    recover: bool = False,
) -> list[Step]:
    """Return the steps of STViT: image layers, the two of the STGM, semantic layers, and recovery.

    arXiv 2303.08685. With P the pooled tokens, X the image tokens and G learned global cluster centres, the two layers
    of the STGM are ``S1 = block(P, context=[P, X])`` and ``S2 = block(S1 + G, context=[S1, X])``; the layers after it
    see the semantic tokens alone. Each takes the place of an ordinary layer.

    Args:
        network: the transformer.
        grid: semantic tokens along each axis, one number for a square.
        layer: image layers before the STGM.
        pooling: how the first cluster centres are pooled, ``'max'`` or ``'avg'``.
        use_global: whether there are global cluster centres.
        recover: whether the last layer gives the image tokens back.

    Raises:
        ValueError: the STGM, and recovery, do not fit into the layers, or the semantic tokens into the image's.
    """
    num_layers, embed_dims, image_grid, *_ = network
    cells = axes_of('semantic_grid', grid, len(image_grid))
    if not all(s <= g for s, g in zip(cells, image_grid)):
        raise ValueError(
            f'semantic_grid={cells} must have numbers from 1 to those of the token grid {image_grid} '
            '(img_size / patch_size)'
        )
    rest = num_layers - layer - 2 - recover
    if layer < 0 or rest < 0:
        needed = 'the STGM takes two' + (' and recovery one' if recover else '')
        raise ValueError(
            f'stgm_layer={layer} does not fit: {needed} of {num_layers} layers, so stgm_layer must be between 0 '
            f'and {num_layers - 2 - recover}'
        )
    return [
        *(SelfAttention() for _ in range(layer)),
        Generation(embed_dims, pooling, cells),
        Refinement(embed_dims, cells if use_global else None),
        *(SelfAttention(across=True) for _ in range(rest)),
        *([Recovery()] if recover else []),
    ]
