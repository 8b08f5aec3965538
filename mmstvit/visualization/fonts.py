"""Fonts for text in any script: the installed ones that have its characters, escapes where none has them."""

import functools
import logging
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

_FIRST = 'DejaVu Sans'  # comes with matplotlib
_NO_LETTERS = 'Last Resort'  # has a box for every character
_logger = logging.getLogger(__name__)
_reported: set[str] = set()


class Drawable(NamedTuple):
    """Text as it can be drawn, and matplotlib's names of the fonts that have its characters."""

    text: str
    families: list[str]


def drawable(text: str) -> Drawable:
    """Choose fonts for a text; characters that no installed font has are replaced by escapes such as ``\\u732b``.

    What is replaced is reported once, with what to install.
    """
    # Fonts have boxes for control characters, and need have none for spaces and marks of the writing direction.
    text = ''.join(
        ' ' if unicodedata.category(c) in ('Cc', 'Zs') and c != '\n' else c
        for c in text
        if unicodedata.category(c) != 'Cf' or ord(c) in _characters(_FIRST)
    )
    families, missing = [_FIRST], {c for c in text if c != '\n'} - set(map(chr, _characters(_FIRST)))
    while missing:
        best = max(_families(), key=lambda family: len(_of(family, missing)), default=None)
        if best is None or not _of(best, missing):
            break
        families.append(best)
        missing -= _of(best, missing)
    if missing:
        _report(missing)
        text = ''.join(c.encode('ascii', 'backslashreplace').decode() if c in missing else c for c in text)
    return Drawable(text, families)


def _of(family: str, characters: Iterable[str]) -> set[str]:
    points = _characters(family)
    return {c for c in characters if ord(c) in points}


@functools.cache
def _characters(family: str) -> frozenset[int]:
    """The code points that the font has which matplotlib takes for a family; none where it cannot be drawn with."""
    from matplotlib.font_manager import FontProperties, fontManager, get_font

    try:
        font = get_font(fontManager.findfont(FontProperties(family=family), fallback_to_default=False))
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):  # a broken file among the installed ones
        return frozenset()


def _families() -> list[str]:
    """Names of the installed fonts, those without serifs first."""
    from matplotlib.font_manager import fontManager

    _add_new_fonts()
    fonts = (font for font in fontManager.ttflist if font.weight == 400 and font.style == 'normal')
    names = {font.name for font in fonts if not font.name.startswith(_NO_LETTERS)}
    return sorted(names, key=lambda name: ('Sans' not in name, name))


@functools.cache
def _add_new_fonts() -> None:
    """Add fonts that were installed after matplotlib has written its list of them."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    files = {entry.fname for entry in fontManager.ttflist}
    for path in sorted({*findSystemFonts()} - files):
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):
            continue


def _report(missing: set[str]) -> None:
    if not _reported:
        one = min(missing)
        _logger.warning(
            f'no installed font has {one} ({unicodedata.name(one, "unknown")}): pictures show numbers of characters '
            'such as \\u732b in its place; install a font that has it, e.g. with apt-get install fonts-noto-cjk for '
            'Chinese, Japanese and Korean, or fonts-noto-core for other scripts'
        )
    _reported.update(missing)


def text_line(text: str, height: int, size: float = 10) -> np.ndarray:
    """Draw a text in black on white: (height, width, 3), uint8, as wide as the text.

    Args:
        text: one line.
        height: in pixels.
        size: of the font, in points of 1/72 inch at 100 pixels an inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown, families = drawable(text.replace('\n', ' '))
    figure = Figure((1, height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    drawn = figure.text(0, 0.5, shown, va='center', fontsize=size, fontfamily=families, parse_math=False)
    figure.set_size_inches(max(np.ceil(drawn.get_window_extent(canvas.get_renderer()).width), 1) / 100, height / 100)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def choose_fonts(visualizer: Any) -> Any:
    """Let a visualizer of mmengine draw texts with fonts that have their characters; returns it."""
    axes = visualizer.ax_save
    if 'text' in vars(axes):
        return visualizer  # mmengine keeps one for all runs of a name
    write = axes.text

    def text(x: float, y: float, s: str, *args: Any, family: str | list[str] = 'sans-serif', **kwargs: Any) -> Any:
        shown, families = drawable(s)
        # Characters that the first font lacks are taken from the next one.
        families = [*([family] if isinstance(family, str) else family), *families]
        return write(x, y, shown, *args, family=families, **kwargs)

    axes.text = text
    return visualizer
