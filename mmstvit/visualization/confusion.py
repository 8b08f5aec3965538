"""The picture of a confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .fonts import drawable

_DPI = 100
_COUNTED = 30  # classes up to which counts are written into the cells
_NAMED = 100  # classes up to which each has its name at the edges


def confusion_picture(matrix: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Draw a confusion matrix; the colour of a cell is its share of the row, so that rare classes can be seen.

    Args:
        matrix: (classes, classes), how often each class (row) was predicted as which (column).
        classes: their names.

    Returns:
        The picture, uint8 RGB: with counts in the cells up to 30 classes, names at the edges up to 100, and numbers at
        some of more.
    """
    number, counted = len(matrix), len(matrix) <= _COUNTED
    longest = max(map(len, classes)) if number <= _NAMED else 0
    inches = max(3.0, number * (0.42 if counted else 0.16) if number <= _NAMED else 10.0)
    labels = min(longest, 30) * 0.085 + 0.7  # inches that names take
    width, height = inches + labels + 1.2, inches + labels + 0.5
    figure = Figure((width, height), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((labels / width, labels / height, inches / width, inches / height))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    names = [name if len(name) <= 30 else f'{name[:29]}…' for name in classes]
    shown = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    axes.set(xlabel='predicted', ylabel='true')
    ticks = np.arange(0, number, 1 if number <= _NAMED else -(-number // 20))
    text, fonts = drawable('\n'.join(names if number <= _NAMED else map(str, ticks)))
    ends = text.split('\n')
    style: dict[str, Any] = dict(fontfamily=fonts, parse_math=False)
    axes.set_xticks(ticks, ends, rotation='vertical', **style)
    axes.set_yticks(ticks, ends, **style)
    if _COUNTED < number <= _NAMED:
        axes.tick_params(labelsize=8)
    if counted:
        for row, column in np.argwhere(matrix):
            colour = 'white' if shares[row, column] > 0.5 else 'black'
            text = str(matrix[row, column])
            axes.text(column, row, text, ha='center', va='center', color=colour, fontsize=10 if len(text) < 4 else 7)
    bar = figure.add_axes(((labels + inches + 0.15) / width, labels / height, 0.15 / width, inches / height))
    figure.colorbar(shown, cax=bar, label='share of the true class')
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
