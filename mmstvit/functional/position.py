"""Position embeddings on grids of any rank."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_MODES = {1: 'linear', 2: 'bicubic'}


def resize_table(table: Tensor, grid: Sequence[int]) -> Tensor:
    """Resize a grid of position embeddings: bicubic in space, linear in time.

    The table carries its own grid, so tables of non-square images need no guess. A table of clips is resized in space
    as one of images, step by step, so that one which is the same at each step stays so.

    Args:
        table: ``(1, *source_grid, C)``, 1 to 3 grid axes: time, rows and columns, or the last two, or time alone.
        grid: the wanted grid, in cells.

    Returns:
        ``(1, *grid, C)``; ``table`` itself where it has that grid already.
    """
    source = table.shape[1:-1]
    if tuple(source) == tuple(grid):
        return table
    if len(source) == 3:
        steps = resize_table(table.flatten(0, 1), grid[1:])  # (T, *space, C)
        steps = resize_table(steps.flatten(1).unsqueeze(0), grid[:1])  # (1, time, space C)
        return steps.unflatten(2, (*grid[1:], -1))
    # Cubic interpolation in half precision is not offered on every device, and float32 costs nothing here.
    channels_first = table.movedim(-1, 1).float()  # (1, C, *source)
    resized = F.interpolate(channels_first, size=tuple(grid), mode=_MODES[len(source)], align_corners=False)
    return resized.movedim(1, -1).to(table.dtype)


def sinusoid_table(positions: int, embed_dims: int) -> Tensor:
    """Return sinusoidal position embeddings ("Attention Is All You Need", section 3.5).

    Args:
        positions: how many.
        embed_dims: channels C; the even hold the sine, the odd the cosine of position / 10000^(2 floor(i / 2) / C).

    Returns:
        ``(positions, C)``.
    """
    channel = torch.arange(embed_dims, dtype=torch.float64)
    angle = torch.arange(positions)[:, None] / 10000 ** (2 * (channel // 2) / embed_dims)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()
