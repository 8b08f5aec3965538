"""Semantic tokens: which layers of a transformer make them, work on them, and give the image tokens back."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..functional.position import resize_table
from ..functional.windows import (
    HIDDEN,
    Size,
    adaptive_pool,
    keys_of_boxes,
    live_cells,
    partition,
    reverse,
    shifted_mask,
)
from .attention import Plan, Windows

POOLING = ('max', 'avg')
KEY_MASKS = ('exact', 'published', None)

# What a layer does. Image layers: self-attention of the image tokens (in shifted windows, where there are windows).
# The STGM: 'generate' and 'refine'. Then self-attention of the semantic tokens, of each window or of all, and recovery.
ROLES = ('image', 'shifted', 'generate', 'refine', 'local', 'semantic', 'recover')


def layer_roles(num_layers: int, stgm_layer: int | None, recover: bool = False) -> tuple[str, ...]:
    """What each layer of a network on the plain transformer does, first to last.

    Args:
        num_layers: layers in all.
        stgm_layer: image layers before the STGM; ``None`` for a network without semantic tokens.
        recover: whether the last layer gives the image tokens back.

    Raises:
        ValueError: the STGM, and recovery, do not fit into the layers.
    """
    if stgm_layer is None:
        return ('image',) * num_layers
    rest = num_layers - stgm_layer - 2 - recover
    if stgm_layer < 0 or rest < 0:
        needed = 'the STGM takes two' + (' and recovery one' if recover else '')
        raise ValueError(
            f'stgm_layer={stgm_layer} does not fit: {needed} of {num_layers} layers, so stgm_layer must be between 0 '
            f'and {num_layers - 2 - recover}'
        )
    return ('image',) * stgm_layer + ('generate', 'refine') + ('semantic',) * rest + ('recover',) * recover


class WholeImage(NamedTuple):
    """Semantic tokens of the image as a whole, as in the plain transformer: everybody sees everybody.

    Image tokens are ``(B, extra + N, C)``, semantic ones ``(B, extra + M, C)``; the extra tokens (a class token) come
    first and ride along.

    Attributes:
        grid: the grid of the image tokens, N cells.
        semantic_grid: the grid of the semantic tokens, M cells.
        pooling: how the first cluster centres are made.
        extra: tokens that belong to no cell.
        device: where biases are to be.
    """

    grid: Size
    semantic_grid: Size | None
    pooling: str
    extra: int
    device: torch.device

    def plan(self, role: str) -> Plan | None:
        if len(self.grid) < 3:
            return None
        image, extra = (math.prod(self.grid), self.grid[0]), (self.extra, 1)
        if role in ('image', 'shifted'):
            return balanced_plan((extra, image), self.device)
        semantic = (math.prod(self.semantic_grid), self.semantic_grid[0])
        if role in ('generate', 'refine'):
            return balanced_plan((extra, semantic, image), self.device)
        return balanced_plan((extra, semantic), self.device)

    @property
    def cells(self) -> Size | None:
        """The grid of the semantic tokens."""
        return self.semantic_grid

    live = cells

    def lay(self, grid: Tensor) -> Tensor:
        """What belongs to the cells of a grid (B, *grid, C), as the image tokens are laid out; extra tokens get zeros.

        The same for semantic tokens is :meth:`split`.
        """
        return F.pad(grid.flatten(1, -2), (0, 0, self.extra, 0))

    split = lay

    def join(self, s: Tensor) -> Tensor:
        """Semantic tokens without the extra ones, (B, extra + M, C) -> (B, *cells, C)."""
        return s[:, self.extra :].unflatten(1, self.semantic_grid)

    def image(self, x: Tensor) -> Tensor:
        return x[:, self.extra :]

    def image_grid(self, x: Tensor) -> Tensor:
        """Image tokens without the extra ones, (B, extra + N, C) -> (B, *grid, C): the inverse of :meth:`lay`."""
        return self.image(x).unflatten(1, self.grid)

    def seeds(self, x: Tensor) -> Tensor:
        pooled = adaptive_pool(self.image_grid(x), self.semantic_grid, self.pooling)
        return torch.cat((x[:, : self.extra], pooled.flatten(1, -2)), dim=1)

    def generate_context(self, s: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return s, self.image(x)

    refine_context = generate_context

    def centers(self, table: Tensor) -> Tensor:
        return self.split(table)

    def recover_context(self, s: Tensor) -> tuple[Tensor, ...]:
        return (s,)

    def image_queries(self, s: Tensor, x: Tensor) -> Tensor:
        return torch.cat((s[:, : self.extra], self.image(x)), dim=1)


@functools.lru_cache(maxsize=36)
def balanced_plan(parts: tuple[tuple[int, int], ...], device: torch.device) -> Plan | None:
    """All to all in a clip, where the tokens of some parts of the keys come more often in time than those of others.

    Each part weighs as it does in an image, however many steps of time it has: a clip that stands still then has the
    features of its image, and weights of images are a good start.

    Args:
        parts: tokens and steps of time of each part of the keys, in order.
        device: where the bias is to be.
    """
    parts = [part for part in parts if part[0]]
    longest = max(steps for _, steps in parts)
    if all(steps == longest for _, steps in parts):
        return None
    with torch.inference_mode(False):
        bias = torch.cat([torch.full((tokens,), math.log(longest / steps)) for tokens, steps in parts])
        return Plan(bias=bias.reshape(1, 1, 1, -1).to(device))


class WindowSpec(NamedTuple):
    """Semantic tokens of each window of a hierarchical transformer; hashable, so that plans can be kept.

    Attributes:
        window: image tokens of a window along each axis.
        size: semantic tokens of a window along each axis.
        pooling: how the first cluster centres are made.
        dense: whether the image is padded to whole windows and each layer sees a larger window around its own, as the
            published STViT-R for detection does; else windows are stretched to the image, all their cells are real, and
            all layers but the first see everything.
        mask: of the keys in the dense form, see :func:`.keys_of_boxes`.
        hide_padding: whether image layers hide the padding of their windows; Swin does not.
        always_shift: whether windows are shifted even where one covers the image.
        fit: whether a window of image tokens shrinks to the image along each axis where it is larger, and is not
            shifted along that one alone, as in Video Swin; Swin pads, and shifts along all axes or none.
    """

    window: Size
    size: Size
    pooling: str = 'max'
    dense: bool = False
    mask: str | None = 'exact'
    hide_padding: bool = False
    always_shift: bool = False
    fit: bool = False


class WindowLayout(NamedTuple):
    """A :class:`WindowSpec` at one image size. Image tokens are ``(B, *grid, C)``, semantic ones ``(B, G, n, C)``.

    Attributes:
        spec: the windows and semantic tokens.
        grid: the grid of the image tokens.
        counts: windows along each axis.
        device: where masks and indices are to be.
    """

    spec: WindowSpec
    grid: Size
    counts: Size
    device: torch.device

    def plan(self, role: str) -> Plan:
        return window_plan(self, role)

    @property
    def cells(self) -> Size:
        """The grid of the semantic tokens."""
        return tuple(n * s for n, s in zip(self.counts, self.spec.size))

    @property
    def live(self) -> Size:
        """Semantic cells along each axis that may be keys: those made of real tokens, which come first."""
        if self.spec.dense and self.spec.mask == 'exact':
            live = live_cells(self.grid, self.spec.window, self.spec.size)
            return tuple(min(n, c) for n, c in zip(live, self.cells))
        return self.cells

    def lay(self, grid: Tensor) -> Tensor:
        """What belongs to the cells of a grid, as the image tokens are laid out: it is what they are."""
        return grid

    image_grid = lay

    def seeds(self, x: Tensor) -> Tensor:
        """Pool the image tokens: (B, *grid, C) -> (B, G, n, C)."""
        spec = self.spec
        if not spec.dense:
            return self.split(adaptive_pool(x, self.cells, spec.pooling))
        padded = tuple(n * w for n, w in zip(self.counts, spec.window))
        ragged = spec.mask == 'exact' and padded != self.grid

        def pool(tokens: Tensor, value: float) -> Tensor:
            windows = partition(tokens, spec.window, self.counts, value)
            pooled = adaptive_pool(windows.flatten(0, 1).unflatten(1, spec.window), spec.size, spec.pooling)
            return pooled.flatten(1, -2).unflatten(0, windows.shape[:2])

        if not ragged:
            return pool(x, 0.0)
        if spec.pooling == 'avg':
            # The mean over real tokens: the share of them in each bin divides the padding's zeros out.
            return pool(x, 0.0) / pool(x.new_ones(1, *self.grid, 1), 0.0).clamp(min=1e-6)
        pooled = pool(x, float('-inf'))
        return torch.where(pooled.isinf(), torch.zeros_like(pooled), pooled)

    def split(self, cells: Tensor) -> Tensor:
        """(B, *cells, C) -> (B, G, n, C)."""
        return partition(cells, self.spec.size, self.counts)

    def join(self, s: Tensor) -> Tensor:
        """(B, G, n, C) -> (B, *cells, C)."""
        return reverse(s, self.spec.size, self.counts, self.cells)

    def join_to(self, cells: Size, s: Tensor) -> Tensor:
        """Join the tokens for a layer with a table of relative positions on ``cells``."""
        if self.cells != cells:
            raise ValueError(
                f'relative_pos=True is made for {cells} semantic tokens, as at 224 px, and this image has {self.cells}'
            )
        return self.join(s)

    def _with_zero(self, role: str, *parts: Tensor) -> tuple[Tensor, ...]:
        # One zero token stands for all the zeros that a published larger window holds.
        if len(self.plan(role).keys) > len(parts):
            return *parts, parts[0].new_zeros(parts[0].shape[0], 1, parts[0].shape[-1])
        return parts

    def generate_context(self, s: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return self._with_zero('generate', x) if self.spec.dense else (s, x)

    def refine_context(self, s: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return self._with_zero('refine', x) if self.spec.dense else (s, x)

    def centers(self, table: Tensor) -> Tensor:
        return self.split(resize_table(table, self.cells))

    def recover_context(self, s: Tensor) -> tuple[Tensor, ...]:
        return self._with_zero('recover', s) if self.spec.dense else (s,)

    def image_queries(self, s: Tensor, x: Tensor) -> Tensor:
        return x


@functools.lru_cache(maxsize=36)  # three image sizes; one of 800 x 1216 takes 54 MB
def window_plan(layout: WindowLayout, role: str) -> Plan:
    """Who attends to whom in the layers of a role: made once for an image size, and kept for the last sizes seen."""
    # A tensor made in inference mode could not be used in training later.
    with torch.inference_mode(False):
        if role in ('image', 'shifted'):
            return _image_plan(layout, role == 'shifted')
        if role in ('local', 'semantic'):
            return _semantic_plan(layout, role)
        return (_dense_plan if layout.spec.dense else _stretched_plan)(layout, role)


def _image_plan(layout: WindowLayout, shifted: bool) -> Plan:
    spec, grid = layout.spec, layout.grid
    covered = [g <= w for g, w in zip(grid, spec.window)]
    window, shift = spec.window, tuple(w // 2 for w in spec.window)
    if spec.fit:
        window = tuple(min(g, w) for g, w in zip(grid, window))
        shift = tuple(0 if c else s for c, s in zip(covered, shift))
    elif any(covered) and not spec.always_shift:
        shift = (0,) * len(grid)
    if not shifted:
        shift = (0,) * len(grid)
    mask = shifted_mask(grid, window, layout.counts, shift, spec.hide_padding, layout.device)
    return Plan(Windows(grid, window, layout.counts, shift), bias=mask)


def _semantic_plan(layout: WindowLayout, role: str) -> Plan:
    live, cells = layout.live, layout.cells
    groups = 1 if role == 'semantic' else None
    if live == cells:
        return Plan(groups=groups)
    dead = torch.full((1, *cells, 1), HIDDEN)
    dead[(0, *(slice(0, n) for n in live))] = 0.0
    dead = layout.split(dead)[0, ..., 0].to(layout.device)  # (G, n)
    return Plan(groups=groups, bias=dead.reshape(1, 1, 1, -1) if groups else dead[:, None, None])


def _dense_plan(layout: WindowLayout, role: str) -> Plan:
    """Larger windows of the published dense STViT-R around each window, in whole tokens before and after it."""
    spec, counts, grid = layout.spec, layout.counts, layout.grid
    padded = tuple(n * w for n, w in zip(counts, spec.window))
    pads = tuple(p - g for p, g in zip(padded, grid))
    windows = None
    if role == 'recover':
        windows = Windows(grid, spec.window, counts, (0,) * len(grid))
        unit, length, real, queries = spec.size, layout.cells, layout.live, math.prod(spec.window)
        before = after = tuple(4 * s for s in spec.size)
    else:
        unit, length, real, queries = spec.window, padded, grid, math.prod(spec.size)
        before = tuple(w // 2 for w in unit) if role == 'generate' else unit
        after = tuple(w - w // 2 for w in unit) if role == 'generate' else unit
    starts = tuple(tuple(i * u - b for i in range(n)) for n, u, b in zip(counts, unit, before))
    ends = tuple(tuple((i + 1) * u + a for i in range(n)) for n, u, a in zip(counts, unit, after))
    windowed = role == 'recover'
    keys = keys_of_boxes(starts, ends, queries, unit, length, real, windowed, spec.mask, pads, True, layout.device)
    parts, bias = (keys,), keys.bias
    if keys.outside is not None:
        parts, bias = (keys, None), torch.cat((bias, keys.outside), dim=-1)
    return Plan(windows, parts, bias, len(bias))


def _stretched_plan(layout: WindowLayout, role: str) -> Plan:
    """Windows stretched to the image: the first STGM layer sees its own tokens and a larger window, the others all."""
    spec, counts, grid, cells = layout.spec, layout.counts, layout.grid, layout.cells
    if role != 'generate':
        plan = None
        if role == 'refine' and len(grid) == 3:
            plan = balanced_plan(((math.prod(cells), cells[0]), (math.prod(grid), grid[0])), layout.device)
        return Plan(groups=1) if plan is None else plan._replace(groups=1)
    queries, none = math.prod(spec.size), (0,) * len(grid)
    axes = list(zip(grid, counts, spec.window))
    image_starts = tuple(tuple(i * g // n - w // 2 for i in range(n)) for g, n, w in axes)
    image_ends = tuple(tuple(-(-(i + 1) * g // n) + w // 2 for i in range(n)) for g, n, w in axes)
    image = keys_of_boxes(
        image_starts, image_ends, queries, grid, grid, grid, False, 'exact', none, False, layout.device
    )
    starts = tuple(tuple(i * s for i in range(n)) for n, s in zip(counts, spec.size))
    ends = tuple(tuple((i + 1) * s for i in range(n)) for n, s in zip(counts, spec.size))
    own = keys_of_boxes(starts, ends, queries, spec.size, cells, cells, True, 'exact', none, False, layout.device)
    own_bias = own.bias
    if len(grid) == 3:
        # As in `balanced_plan`: each window sees a few steps of time of its own tokens, and more of the image.
        seen = torch.tensor([min(e, grid[0]) - max(s, 0) for s, e in zip(image_starts[0], image_ends[0])])
        balance = (seen / spec.size[0]).log().repeat_interleave(own_bias.shape[2] // counts[0])
        own_bias = own_bias + balance[:, None].to(layout.device)
    return Plan(groups=1, bias=torch.cat((own_bias, image.bias), dim=-1))


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


class SemanticEncoder(nn.Module):
    """A row of transformer blocks, some of which turn image tokens into semantic tokens and back.

    STViT, arXiv 2303.08685. With P the pooled tokens, X the image tokens and G learned global cluster centres, the two
    layers of the STGM are ``S1 = block(P, context=[P, X])`` and ``S2 = block(S1 + G, context=[S1, X])``; the layers
    after it see the semantic tokens alone, and a recovery layer is ``block(X, context=[S])``. Each takes the place of
    an ordinary layer: the depth, and the names and shapes of the weights, stay those of the plain transformer.

    Args:
        layers: the blocks.
        roles: what each does, see ``ROLES``.
        embed_dims: channels C of the tokens.
        centers_grid: the grid of G, which is added in the first STGM; ``None`` for no G.
        shortcut: whether the first layer of the STGM adds to P; else its output replaces P.
        conv_pos: semantic tokens of a window along each axis, for a :class:`CenterConv` of P; ``None`` for none.
        with_cp: recompute each layer's activations in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        roles: Sequence[str],
        embed_dims: int,
        centers_grid: Sequence[int] | None = None,
        shortcut: bool = True,
        conv_pos: Size | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.roles = tuple(roles)
        # By the number of their layer.
        self.conv_pos = nn.ModuleDict(
            {str(i): CenterConv(embed_dims, conv_pos) for i, r in enumerate(roles) if conv_pos and r == 'generate'}
        )
        self.shortcut = shortcut
        self.with_cp = with_cp
        self.global_centers = None
        if centers_grid is not None:
            self.global_centers = nn.Parameter(torch.zeros(1, *centers_grid, embed_dims))
            trunc_normal_(self.global_centers, std=0.02)

    def _run(self, layer: nn.Module, *args) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(layer, *args, use_reentrant=False)
        return layer(*args)

    def forward(
        self, x: Tensor, layout: WholeImage | WindowLayout, out_indices: Sequence[int] = ()
    ) -> tuple[Tensor, bool, list[tuple[Tensor, bool]]]:
        """Run the layers one after the other.

        Args:
            x: image tokens, as ``layout`` has them.
            layout: how image and semantic tokens are laid out.
            out_indices: the layers whose outputs are wanted, counted from 0.

        Returns:
            The last output, whether it is of semantic tokens, and both for each wanted layer.
        """
        image, s, outs = x, None, []
        for i, (layer, role) in enumerate(zip(self.layers, self.roles, strict=True)):
            plan = layout.plan(role)
            if role in ('image', 'shifted'):
                image = self._run(layer, image, None, plan)
            elif role == 'generate':
                s = layout.seeds(image)
                if self.conv_pos:
                    s = self.conv_pos[str(i)](s)
                s = self._run(layer, s, layout.generate_context(s, image), plan, self.shortcut)
            elif role == 'refine':
                centers = self.global_centers is not None and i == self.roles.index('refine')
                query = s + layout.centers(self.global_centers) if centers else s
                s = self._run(layer, query, layout.refine_context(s, image), plan)
            elif role == 'recover':
                image = self._run(layer, layout.image_queries(s, image), layout.recover_context(s), plan)
                s = None
            elif role == 'semantic' and layer.attn.relative_window is not None:
                # Its table is for the whole grid of semantic tokens, row by row.
                s = layout.split(self._run(layer, layout.join_to(layer.attn.relative_window, s), None, plan))
            else:
                s = self._run(layer, s, None, plan)
            if i in out_indices:
                outs.append((image if s is None else s, s is not None))
        return image if s is None else s, s is not None, outs
