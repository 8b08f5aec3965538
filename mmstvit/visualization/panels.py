"""Lay out panels of pixels with their titles in one picture."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .fonts import drawable

_DPI = 100
_TITLE = 24  # pixels
GAP = 10
_NAMES = 130  # for the names of rows

Panel = tuple[np.ndarray | None, str]  # pixels, or none for a place with the text alone, and the title


def side_by_side(rows: Sequence[Sequence[Panel]]) -> Sequence[Sequence[Panel]]:
    """Put the second half of a sheet beside the first where it would be tall and narrow."""
    if len(rows) < 4 or len(rows[0]) > 4:
        return rows
    half = -(-len(rows) // 2)
    empty: list[Panel] = [(None, '')] * len(rows[0])
    right = [*rows[half:], *[empty] * (2 * half - len(rows))]
    return [[*one, *other] for one, other in zip(rows, right)]


def grid_of_panels(rows: Sequence[Sequence[Panel]], title: str = '', names: Sequence[str] = ()) -> np.ndarray:
    """Draw panels with their titles, each pixel of them a pixel of the picture.

    Args:
        rows: of panels; ``None`` for a place with the text alone.
        title: of the whole.
        names: of the rows.
    """
    heights = [max(panel.shape[0] for panel, _ in row if panel is not None) for row in rows]
    widths = [max(panel.shape[1] for panel, _ in column if panel is not None) for column in zip(*rows)]
    titled = [_TITLE if any(text for panel, text in row if panel is not None) else 0 for row in rows]
    left, top = _NAMES if names else GAP, GAP + (_TITLE if title else 0)
    width = left + sum(widths) + GAP * len(widths)
    height = top + sum(heights) + sum(titled) + GAP * len(heights)
    figure = Figure((width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    if title:
        title, fonts = drawable(title)
        place: dict[str, Any] = dict(ha='center', va='top', fontsize=12)
        figure.text(0.5, 1 - GAP / height, title, **place, fontfamily=fonts, parse_math=False)
    y = top
    for i, row in enumerate(rows):
        y += titled[i]
        if names:
            name, fonts = drawable(names[i])
            place = dict(ha='right', va='center', fontfamily=fonts, parse_math=False)
            figure.text((left - GAP) / width, 1 - (y + heights[i] / 2) / height, name, **place)
        x = left
        for (panel, text), column in zip(row, widths):
            if panel is None:
                figure.text(x / width, 1 - (y + GAP) / height, text, va='top', fontsize=9, linespacing=1.4)
            else:
                high, wide = panel.shape[:2]
                axes = figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))
                axes.imshow(panel, interpolation='nearest', aspect='auto')
                text, fonts = drawable(text)
                axes.set_title(text, fontsize=10, fontfamily=fonts, pad=4, parse_math=False)
                axes.axis('off')
            x += column + GAP
        y += heights[i] + GAP
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def scaled(array: np.ndarray, least: int) -> np.ndarray:
    """Scale an image or a map by a whole number to a shorter edge from ``least`` to less than twice that.

    Pixels of small ones are repeated, and nothing is blurred; large ones are reduced, maps of numbers without mixing.
    """
    height, width = array.shape[:2]
    short = min(height, width)
    if short < least:
        times = -(-least // short)
        return array.repeat(times, 0).repeat(times, 1)
    size = (width // (short // least), height // (short // least))
    if array.dtype.kind == 'i':
        return cv2.resize(array.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA)


def outlined(picture: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Return a picture (height, width, 3) with white lines between regions, (height, width) of their numbers."""
    border = np.zeros(regions.shape, bool)
    border[1:] |= regions[1:] != regions[:-1]
    border[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    return np.where(border[..., None], np.uint8(255), picture)
