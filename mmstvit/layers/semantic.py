"""Semantic tokens: the layers of a transformer, and which of them turn image tokens into semantic ones."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor
from torch.utils.checkpoint import checkpoint

POOLING = ('max', 'avg')


def pool_tokens(tokens: Tensor, grid: Sequence[int], pooling: str) -> Tensor:
    """Pool a grid of tokens to the initial cluster centres.

    Adaptive pooling: where the source is no multiple of the target, neighbouring windows overlap, which the STViT
    paper calls intra- and inter-window pooling.

    Args:
        tokens: ``(B, *source_grid, C)``.
        grid: the target grid, of the same rank.
        pooling: ``'max'`` or ``'avg'``.

    Returns:
        ``(B, *grid, C)``.
    """
    pool = getattr(F, f'adaptive_{pooling}_pool{len(grid)}d')
    return pool(tokens.movedim(-1, 1), tuple(grid)).movedim(1, -1)


def layer_roles(num_layers: int, stgm_layer: int | None) -> tuple[str, ...]:
    """What each layer of a network does, first to last.

    ``image``: self-attention of the image tokens; ``generate`` and ``refine``: the two layers of the semantic token
    generation module (STGM); ``semantic``: self-attention of the semantic tokens.

    Args:
        num_layers: layers in all.
        stgm_layer: image layers before the STGM; ``None`` for a network without semantic tokens.

    Raises:
        ValueError: the STGM does not fit into the layers.
    """
    if stgm_layer is None:
        return ('image',) * num_layers
    if not 0 <= stgm_layer <= num_layers - 2:
        raise ValueError(
            f'stgm_layer={stgm_layer} does not fit: the STGM takes two of {num_layers} layers, so stgm_layer must be '
            f'between 0 and {num_layers - 2}'
        )
    return ('image',) * stgm_layer + ('generate', 'refine') + ('semantic',) * (num_layers - stgm_layer - 2)


class SemanticEncoder(nn.Module):
    """A row of transformer blocks in which two, the STGM, replace the image tokens by a few semantic tokens.

    STViT, arXiv 2303.08685, section 3.2. With P the pooled tokens, X the image tokens and G learned global cluster
    centres, STGM layer 1 is ``S1 = block(P, context=[P, X])``, layer 2 is ``S2 = block(S1 + G, context=[S1, X])``;
    the layers after it see S2 alone. The STGM takes the place of two ordinary layers: the depth, and the names and
    shapes of the weights, stay those of the plain transformer.

    Args:
        layers: the blocks, each called as ``block(x)`` or ``block(x, context)``.
        embed_dims: channels C of the tokens.
        semantic_grid: grid of the semantic tokens, or ``None`` for a plain transformer.
        stgm_layer: image layers before the STGM.
        pooling: how P is made, ``'max'`` or ``'avg'``.
        use_global: whether G is added.
        num_extra_tokens: leading tokens that belong to no grid cell (a class token); they ride along.
        with_cp: recompute each layer's activations in the backward pass instead of keeping them.

    Raises:
        ValueError: an option has no meaning or does not fit the layers.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        embed_dims: int,
        semantic_grid: Sequence[int] | None,
        stgm_layer: int,
        pooling: str = 'max',
        use_global: bool = True,
        num_extra_tokens: int = 0,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        if pooling not in POOLING:
            raise ValueError(f'pooling={pooling!r} is unknown, choose from {POOLING}')
        self.layers = nn.ModuleList(layers)
        self.roles = layer_roles(len(self.layers), None if semantic_grid is None else stgm_layer)
        self.semantic_grid = None if semantic_grid is None else tuple(semantic_grid)
        self.pooling = pooling
        self.num_extra_tokens = num_extra_tokens
        self.with_cp = with_cp
        self.global_centers = None
        if semantic_grid is not None and use_global:
            self.global_centers = nn.Parameter(torch.zeros(1, *semantic_grid, embed_dims))
            trunc_normal_(self.global_centers, std=0.02)

    def _run(self, layer: nn.Module, x: Tensor, context: Tensor | None = None) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(layer, x, context, use_reentrant=False)
        return layer(x, context)

    def _seeds(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        """The extra tokens and the pooled image tokens: (B, extra + N, C) -> (B, extra + M, C)."""
        extra, image = x[:, : self.num_extra_tokens], x[:, self.num_extra_tokens :]
        pooled = pool_tokens(image.unflatten(1, tuple(grid)), self.semantic_grid, self.pooling)
        return torch.cat((extra, pooled.flatten(1, -2)), dim=1)

    def _add_centers(self, s: Tensor) -> Tensor:
        if self.global_centers is None:
            return s
        # The centres belong to the semantic tokens: extra tokens get zeros.
        centers = self.global_centers.flatten(1, -2)  # (1, *semantic_grid, C) -> (1, M, C)
        return s + F.pad(centers, (0, 0, self.num_extra_tokens, 0))

    def forward(
        self, x: Tensor, grid: Sequence[int], out_indices: Sequence[int]
    ) -> list[tuple[Tensor, tuple[int, ...]]]:
        """Run the layers one after the other.

        Args:
            x: ``(B, extra + N, C)``, extra tokens first, then the image tokens of ``grid`` in row-major order.
            grid: the grid of the image tokens, N cells.
            out_indices: the layers whose outputs are wanted, counted from 0.

        Returns:
            Of each wanted layer, in order, its output ``(B, extra + cells, C)`` and the grid of those cells.
        """
        grid = tuple(grid)
        image = None
        outs = []
        for i, (layer, role) in enumerate(zip(self.layers, self.roles, strict=True)):
            if role == 'generate':
                image = x[:, self.num_extra_tokens :]
                seeds = self._seeds(x, grid)
                x, grid = self._run(layer, seeds, torch.cat((seeds, image), dim=1)), self.semantic_grid
            elif role == 'refine':
                x = self._run(layer, self._add_centers(x), torch.cat((x, image), dim=1))
            else:
                x = self._run(layer, x)
            if i in out_indices:
                outs.append((x, grid))
        return outs
