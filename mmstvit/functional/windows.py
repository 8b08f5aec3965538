"""Windows over token grids of any rank: partition and its inverse, pooling, and attention masks.

A grid of tokens is ``(B, *grid, C)``. Its windows, row-major, are ``(B, G, n, C)``: G windows of n tokens. Everything
here is a pure function.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, ...]

POOLING = ('max', 'avg')

# Added to the logits of a key that must not be seen. Finite, so that a window of padding alone, which sees nothing,
# gets finite values; large enough that the key's weight is exactly zero in any precision.
HIDDEN = -1e4


def num_windows(grid: Sequence[int], window: Sequence[int]) -> Size:
    """Return the number of windows along each axis, counting a padded last one."""
    return tuple(-(-g // w) for g, w in zip(grid, window))


def pad_to(x: Tensor, size: Sequence[int], value: float = 0.0) -> Tensor:
    """Zero-pad the end of each axis of (B, *grid, C) to ``size``."""
    pads = [n - g for n, g in zip(size, x.shape[1:-1])]
    return F.pad(x, [0, 0] + [n for pad in reversed(pads) for n in (0, pad)], value=value) if any(pads) else x


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Crop (B, *grid, C) to its first ``size`` cells along each axis."""
    return x[(slice(None), *(slice(0, n) for n in size))]


def partition(x: Tensor, window: Sequence[int], counts: Sequence[int], value: float = 0.0) -> Tensor:
    """Partition a grid into windows.

    Args:
        x: ``(B, *grid, C)``.
        window: tokens along each axis of a window.
        counts: windows along each axis; the end of the grid is padded with ``value`` to that many.
        value: of the padding.

    Returns:
        ``(B, G, n, C)``, windows and the tokens in them row-major.
    """
    rank = len(window)
    x = pad_to(x, [n * w for n, w in zip(counts, window)], value)
    split = [n for pair in zip(counts, window) for n in pair]
    # (B, G1, w1, G2, w2, ..., C) -> (B, G1, G2, ..., w1, w2, ..., C)
    order = [0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1]
    x = x.reshape(x.shape[0], *split, x.shape[-1]).permute(order)
    return x.reshape(x.shape[0], math.prod(counts), math.prod(window), x.shape[-1])


def reverse(windows: Tensor, window: Sequence[int], counts: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Merge windows (B, G, n, C) to a grid (B, *grid, C) without padding: the inverse of :func:`partition`."""
    rank = len(window)
    x = windows.reshape(windows.shape[0], *counts, *window, windows.shape[-1])
    # (B, G1, G2, ..., w1, w2, ..., C) -> (B, G1, w1, G2, w2, ..., C)
    order = [0, *(axis for i in range(rank) for axis in (1 + i, 1 + rank + i)), 2 * rank + 1]
    padded = [n * w for n, w in zip(counts, window)]
    x = x.permute(order).reshape(windows.shape[0], *padded, windows.shape[-1])
    return crop_to(x, grid)


def adaptive_pool(x: Tensor, size: Sequence[int], pooling: str) -> Tensor:
    """Adaptive pooling of (B, *grid, C) to (B, *size, C); bins overlap where the sizes do not divide.

    Args:
        x: the tokens.
        size: the wanted grid.
        pooling: ``'max'`` or ``'avg'``.
    """
    pool = getattr(F, f'adaptive_{pooling}_pool{len(size)}d')
    return pool(x.movedim(-1, 1), tuple(size)).movedim(1, -1)


def valid_cells(grid: Sequence[int], window: Sequence[int], size: Sequence[int]) -> Size:
    """Return how many cells along each axis pool at least one token that is not padding.

    Bin i of a window begins at its token floor(i w / s); the cells with a real token come first along each axis.
    """
    full = [(g // w, g % w) for g, w in zip(grid, window)]
    return tuple(n * s + sum(i * w // s < rest for i in range(s)) for (n, rest), w, s in zip(full, window, size))


class Keys(NamedTuple):
    """The keys that each group of query windows attends to.

    Attributes:
        band: along the first axis, in rows of the grid or of windows: rows to pad before and behind, rows of a group,
            and from one group to the next. ``None`` where one group sees all.
        windowed: whether the keys come window by window ``(B, G, n, C)`` instead of as a grid ``(B, *grid, C)``.
        rows: windows along the first axis, for keys that come window by window.
        bias: added to the logits (groups, 1, queries, keys).
    """

    band: tuple[int, int, int, int] | None
    windowed: bool
    rows: int
    bias: Tensor

    def arrange(self, x: Tensor) -> Tensor:
        """Gather (B, ..., C) as the keys of each group: (B, groups, keys, C)."""
        if self.band is None:
            return x.flatten(1, -2).unsqueeze(1)
        if self.windowed:
            x = x.unflatten(1, (self.rows, -1))  # (B, G, n, C) -> (B, rows, G / rows, n, C)
        before, behind, size, step = self.band
        x = F.pad(x, [0, 0] * (x.dim() - 2) + [before, behind])
        # Bands overlap, but are views: a row's tokens are contiguous. (B, groups, ..., C, size) -> (B, groups, keys, C)
        return x.unfold(1, size, step).movedim(-1, 2).flatten(2, -2)


def combine(axes: Sequence[Tensor]) -> Tensor:
    """Combine masks of single axes (c_i, k_i, w_i) to (c_1, ..., k_1, ..., w_1, ...) by logical and."""
    whole = torch.ones((), dtype=torch.bool)
    for i, axis in enumerate(axes):
        shape = [1] * (3 * len(axes))
        shape[i :: len(axes)] = axis.shape
        whole = whole & axis.reshape(shape)
    return whole


class Boxes(NamedTuple):
    """The box of cells of a grid that each query window attends to.

    Attributes:
        starts: first cell of each query window's box, along each axis; may lie before the grid.
        ends: the cell after its last one; may lie behind the grid.
        queries: tokens of a query window.
        window: cells of a window of keys along each axis.
        length: cells of the (padded) grid along each axis.
        real: the cells that are no padding; they come first along each axis.
        windowed: whether the keys come window by window ``(B, G, n, C)`` instead of as a grid ``(B, *grid, C)``.
    """

    starts: tuple[Size, ...]
    ends: tuple[Size, ...]
    queries: int
    window: Size
    length: Size
    real: Size
    windowed: bool = False


def _inside(coords: Sequence[Tensor], starts: Sequence[Size], ends: Sequence[Size]) -> Tensor:
    """Return which cells at ``coords`` (c, k, w along each axis) lie in the box of each query window."""
    bounds = [(torch.tensor(s)[:, None, None], torch.tensor(e)[:, None, None]) for s, e in zip(starts, ends)]
    return combine([(c >= s) & (c < e) for c, (s, e) in zip(coords, bounds)])


def keys_of_boxes(
    boxes: Boxes,
    may_band: bool,
    device: torch.device,
    show: Callable[[Tensor, list[Tensor]], Tensor] | None = None,
) -> Keys:
    """Return the keys of query windows that each attend to one box of cells.

    Where a box is at most half as high as the grid (the first axis), the query windows of a row are a group that sees
    the band of keys which its boxes cover; else all query windows are one group and see all keys. What is not in a
    query window's own box is hidden: attending to too many keys costs less than copying them window by window.

    Args:
        boxes: one for each query window.
        may_band: whether there may be several groups.
        device: where the tensors are to be.
        show: given which keys each query window sees, the real ones in its box, and the coordinates of the keys along
            each axis, returns which it sees by another rule.
    """
    starts, ends, queries, window, length, real, windowed = boxes
    first, last, w = starts[0], ends[0], window[0]
    size = last[0] - first[0]
    banded = may_band and 2 * size <= real[0] and all(e - s == size for s, e in zip(first, last))
    coords = []
    for axis, (n, u) in enumerate(zip(length, window)):
        if axis == 0 and banded:
            cells = torch.tensor(first)[:, None] + torch.arange(size)
            coords.append(cells.unflatten(1, (-1, u)) if windowed else cells[:, None])
        else:
            cells = torch.arange(n).reshape(1, -1, u) if windowed else torch.arange(real[axis]).reshape(1, 1, -1)
            coords.append(cells)
    groups = len(first) if banded else 1
    # (c_1, ..., k_1, ..., w_1, ...) -> (groups, query windows of a group, keys)
    shape = (groups, math.prod([len(s) for s in starts]) // groups, -1)
    seen = _inside(coords, starts, ends) & combine([(c >= 0) & (c < r) for c, r in zip(coords, real)])
    if show is not None:
        seen = show(seen, coords)
    band = None
    if banded:
        unit = w if windowed else 1
        # ``real`` rows come, and windows of padding below them when the keys come window by window.
        rows = length[0] if windowed else real[0]
        band = (-first[0] // unit, (last[-1] - rows) // unit, size // unit, w // unit)
    bias = for_queries(torch.where(seen, 0.0, HIDDEN).reshape(shape), queries).to(device)
    return Keys(band, windowed, length[0] // w, bias)


def for_queries(bias: Tensor, queries: int) -> Tensor:
    """(groups, query windows, keys) -> (groups, 1, query windows x queries, keys)."""
    return bias.repeat_interleave(queries, dim=1)[:, None].contiguous()


def shifted_mask(
    grid: Size, window: Size, counts: Size, shift: Size, exact: bool, device: torch.device
) -> Tensor | None:
    """Return the attention mask of shifted windows, as in Swin: (G, 1, n, n), or ``None`` where nothing is masked.

    Args:
        grid: tokens along each axis.
        window: tokens of a window along each axis.
        counts: windows along each axis; the end is padded.
        shift: tokens along each axis.
        exact: whether padding is hidden too; Swin's own rule lets it be seen, as zeros.
        device: where the mask is to be.
    """
    padded = [n * w for n, w in zip(counts, window)]
    exact = exact and list(grid) != padded
    if not any(shift) and not exact:
        return None
    number = torch.zeros(padded, dtype=torch.int32)
    parts = [(slice(0, -w), slice(-w, -s), slice(-s, None)) if s else (slice(None),) for w, s in zip(window, shift)]
    for i, part in enumerate(itertools.product(*parts)):
        number[part] = i
    number = partition(number[None, ..., None], window, counts)[0, ..., 0]
    hidden = number[:, :, None] != number[:, None, :]
    if exact:
        real = torch.zeros(padded, dtype=torch.bool)
        real[tuple(slice(0, g) for g in grid)] = True
        real = real.roll([-s for s in shift], list(range(len(shift))))
        hidden = hidden | ~partition(real[None, ..., None], window, counts)[0, ..., 0][:, None, :]
    return torch.where(hidden, HIDDEN, 0.0)[:, None].to(device)
