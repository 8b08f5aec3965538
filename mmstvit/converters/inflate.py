"""Inflation of image weights to video, and resizing of relative position biases."""

import math
from collections.abc import Iterator, MutableMapping, Sequence

import torch.nn as nn
from torch import Tensor

from ..functional.position import resize_table


def inflate(
    state_dict: MutableMapping[str, Tensor], prefix: str, own: dict[str, Tensor], tables: Sequence[str]
) -> None:
    """Inflate image weights to the time axis of a video backbone, in place.

    As in I3D and Video Swin: a kernel is repeated in time and divided by the repeats, a table is repeated. A clip that
    stands still then has the features of its image.

    Args:
        state_dict: the file, in our names.
        prefix: of the backbone in it.
        own: the backbone's tensors.
        tables: those of shape ``(1, *grid, C)``.
    """
    for name, tensor in own.items():
        weight = state_dict.get(prefix + name)
        if weight is None or tensor.dim() != 5 or weight.dim() != 4:
            continue
        if name in tables:
            # (1, rows, columns, C) -> (1, time, rows, columns, C)
            state_dict[prefix + name] = weight.unsqueeze(1).expand(-1, tensor.shape[1], -1, -1, -1)
        else:
            # (out, in, rows, columns) -> (out, in, time, rows, columns)
            steps = tensor.shape[2]
            state_dict[prefix + name] = weight.unsqueeze(2).expand(-1, -1, steps, -1, -1) / steps


def bias_table_grids(module: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Return name and grid (2 window - 1 along each axis) of each relative position bias table of a module."""
    for name, part in module.named_modules():
        window = getattr(part, 'relative_window', None)
        if window is not None:
            yield f'{name}.relative_position_bias_table', tuple(2 * w - 1 for w in window)


def table_grid(rows: int) -> tuple[int, ...] | None:
    """Return the grid of a bias table with so many rows, for windows that are square in space.

    One of images has two axes, one of clips three; ``None`` where the rows are those of neither.
    """
    side = math.isqrt(rows)
    if side * side == rows and side % 2:
        return side, side
    # Of the splits into time and a square the one with the largest square: windows are larger in space.
    squares = (s for s in range(side - 1 + side % 2, 0, -2) if rows % (s * s) == 0 and rows // (s * s) % 2)
    side = next(squares, 1)
    return (rows // side**2, side, side) if side > 1 else None


def resize_bias_table(table: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Resize a relative position bias table to another window, from images to clips too.

    Args:
        table: ``(offsets, heads)``.
        grid: the wanted offsets along each axis.

    Returns:
        ``(offsets, heads)``; ``table`` itself where it has them already, or where its own window cannot be told.
    """
    source = None if len(table) == math.prod(grid) else table_grid(len(table))
    if source is None or len(source) > len(grid):
        return table
    cells = table.unflatten(0, source).unsqueeze(0)  # (1, *source, heads)
    cells = resize_table(cells, grid[-len(source) :])
    if len(source) < len(grid):
        cells = cells.unsqueeze(1).expand(-1, grid[0], -1, -1, -1)
    return cells.flatten(0, -2)
