"""Pictures of token maps, uint8 RGB: arrays for a file, for a notebook or for mmengine's Visualizer."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps

from ..io.files import write_whole
from .clips import evenly
from .colours import distinct_colours
from .maps import LayerMaps, TokenMaps, check_tokens
from .panels import GAP, Panel, grid_of_panels, outlined, scaled, side_by_side

_PANEL = 384  # least pixels of the shorter edge of a panel
_ROW = 192  # the same in a contact sheet
_FRAME = 144  # the same of a clip's frames
_TOKENS = 16  # maps of single tokens in a picture, where none are chosen
_FRAMES = 8  # of a clip
_TEXT = 0.42  # size of numbers, of OpenCV's font
_NUMBERED = 0.015  # least share of the picture of a region with a number
ALPHA = 0.6  # share of the colours of tokens in an overlay
_TIMES = 4  # of the mean of a map: at least this is the top of the common scale, so that flat maps are dark

_EXPLAINED = """\
{} x {} semantic tokens, numbered row by row.

Above, each image token has the colour and the number
of the semantic token that attends most to it, or in
recovery is most attended to by it.

Right, where each semantic token's attention lies on
the image, in recovery who attends to it; each map is
scaled to its own maximum."""
_ALIKE = """\
The same maps on one scale for the layer,
the top of which is at least 4 times the mean: a token
that attends to everything alike is evenly dark."""


def palette(semantic_grid: Sequence[int]) -> np.ndarray:
    """Return a colour for each semantic token: (tokens, 3), uint8 RGB.

    Any tokens can be neighbours on an image, so that all are as far apart as their number allows.
    """
    return distinct_colours(math.prod(semantic_grid))


def most_covering(layer: LayerMaps, number: int = _TOKENS) -> list[int]:
    """Return the tokens with most cells in the hard assignment, in the order of their numbers."""
    cells = np.bincount(np.maximum(layer.assigned_cells(), 0).ravel(), minlength=len(layer.live))
    return sorted(np.argsort(-cells, kind='stable')[:number].tolist())


def overlay(
    image: np.ndarray, assigned: np.ndarray, semantic_grid: Sequence[int], least: int, alpha: float = ALPHA
) -> np.ndarray:
    """Draw the hard assignment over the image: a colour a token, borders, and numbers in regions that are not small.

    The image is enlarged by a whole number, no pixel of it is blurred.

    Args:
        image: (height, width, 3), uint8 RGB.
        assigned: (height, width), numbers of tokens, -1 for none, as of :meth:`.LayerMaps.assigned`.
        semantic_grid: the grid of the semantic tokens.
        least: pixels of the shorter edge of the picture.
        alpha: share of the colours from 0 to 1; the rest is the image in grey.
    """
    image, assigned = scaled(image, least), scaled(assigned, least)
    colours = np.concatenate((palette(semantic_grid), np.zeros((1, 3), np.uint8)))[assigned]  # -1 is the last, black
    grey = image.mean(axis=-1, keepdims=True)
    picture = outlined((alpha * colours + (1 - alpha) * grey).astype(np.uint8), assigned)
    for token in np.unique(assigned[assigned >= 0]):
        _number(picture, assigned == token, str(token))
    return picture


def _number(picture: np.ndarray, region: np.ndarray, text: str) -> None:
    """Write a number into each connected part of a region that is not small and that it fits into."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _TEXT, 1)
    for part in range(1, count):
        left, top, wide, high, area = stats[part]
        if wide < width + 4 or high < height + 4 or area < _NUMBERED * region.size:
            continue
        inside = np.pad(parts[top : top + high, left : left + wide] == part, 1).astype(np.uint8)
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        if distance.max() < height / 2 + 2:
            continue
        y, x = np.unravel_index(distance.argmax(), distance.shape)
        write_text(picture, text, (int(left + x - width // 2), int(top + y + height // 2)))


def heat(image: np.ndarray, soft: np.ndarray, peak: float | None, least: int) -> np.ndarray:
    """Draw one soft map over the image.

    Args:
        image: (height, width, 3), uint8 RGB.
        soft: (height, width), not negative.
        peak: the value that is drawn brightest; ``None`` for the largest.
        least: pixels of the shorter edge of the picture.
    """
    image, soft = scaled(image, least), scaled(soft, least)
    peak = float(soft.max()) if peak is None else peak
    strength = np.clip(soft / max(peak, np.finfo(np.float32).tiny), 0, 1)[..., None]
    grey = image.mean(axis=-1, keepdims=True)
    # Where the token does not look, the image shines through, darkened.
    picture = (1 - strength) * 0.4 * grey + strength * (255 * colormaps['inferno'](strength[..., 0])[..., :3])
    return np.clip(picture, 0, 255).astype(np.uint8)


def common_peak(soft: np.ndarray, mean: float) -> float:
    """Return the top of a scale for all maps of a layer: the largest value, and at least 4 times the mean.

    Args:
        soft: the maps.
        mean: the value of maps that are the same everywhere.
    """
    return max(float(soft.max()), _TIMES * mean)


def mosaic(
    image: np.ndarray,
    soft: np.ndarray,
    tokens: Sequence[int],
    columns: int,
    least: int,
    peak: float | None = None,
) -> np.ndarray:
    """Draw soft maps of several tokens, numbered, row by row: uint8 RGB.

    Args:
        image: (height, width, 3), uint8 RGB.
        soft: (tokens, height, width).
        tokens: their numbers.
        columns: maps in a row.
        least: pixels of the shorter edge of a map.
        peak: as of :func:`heat`.
    """
    tiles = [heat(image, one, peak, least) for one in soft]
    for tile, token in zip(tiles, tokens, strict=True):
        write_text(tile, str(token), (4, 14))
    gap = GAP // 3
    padded = np.pad(tiles, ((0, -len(tiles) % columns), (0, gap), (0, gap), (0, 0)), constant_values=255)
    rows = padded.reshape(-1, columns, *padded.shape[1:]).swapaxes(1, 2)  # (rows, height, columns, width, 3)
    return rows.reshape(-1, columns * padded.shape[2], 3)[:-gap, :-gap]


def write_text(picture: np.ndarray, text: str, at: tuple[int, int]) -> None:
    """Write a text in white with a black border, from its lower left corner (x, y) on."""
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, _TEXT, colour, thickness, cv2.LINE_AA)


# ------------------------------------------------------------------------------------------------- whole pictures
def picture(maps: TokenMaps, tokens: Sequence[int] | None = None, title: str = '', alpha: float = ALPHA) -> np.ndarray:
    """Draw everything about one image, or of a clip a strip over time.

    Of an image: what the network saw, the hard assignment of each layer, and below it the soft maps of single tokens,
    each on its own scale, and then all of a layer on one.

    Args:
        maps: of :func:`.token_maps`.
        tokens: whose soft maps are drawn; by default all, or the 16 that cover most in the last layer.
        title: of the whole.
        alpha: as of :func:`overlay`.

    Raises:
        ValueError: there is no such token.
    """
    if maps.image.ndim == 4:
        return strip(maps, tokens, title, alpha)
    last = maps.layers[-1]
    tokens = most_covering(last) if tokens is None else check_tokens(last.live, tokens)
    rows, columns = maps.semantic_grid
    across = columns if len(tokens) == rows * columns else math.ceil(math.sqrt(len(tokens)))
    seen = scaled(maps.image, _PANEL)
    least = max(min(seen.shape[:2]) // across - GAP // 3, 1)
    rows_of_panels: list[list[Panel]] = []
    for unit in sorted({layer.unit for layer in maps.layers}):
        first = not rows_of_panels
        panels: list[Panel] = [(seen, 'what the network sees') if first else (None, '')]
        below: list[Panel] = [(None, _EXPLAINED.format(rows, columns) if first else '')]
        alike: list[Panel] = [(None, _ALIKE if first else '')]
        for layer in [layer for layer in maps.layers if layer.unit == unit]:
            assigned, soft = layer.assigned(), layer.resized(tokens)
            panels.append((overlay(maps.image, assigned, maps.semantic_grid, _PANEL, alpha), _title(maps, layer)))
            below.append((mosaic(maps.image, soft, tokens, across, least), 'each on its own scale'))
            peak = common_peak(soft, layer.flat())
            title_of_scale = f'on one scale: the brightest is {peak / layer.flat():.1f} times the mean'
            alike.append((mosaic(maps.image, soft, tokens, across, least, peak), title_of_scale))
        rows_of_panels += [panels, below, alike]
    return grid_of_panels(rows_of_panels, title)


def sheet(all_maps: Sequence[TokenMaps], titles: Sequence[str] | None = None, alpha: float = ALPHA) -> np.ndarray:
    """Draw a contact sheet: of each image, in a row, what the network saw and the hard assignments.

    Args:
        all_maps: of one model; of a clip its middle frame is shown.
        titles: one an image.
        alpha: as of :func:`overlay`.
    """
    rows = []
    for maps, title in zip(all_maps, titles or [''] * len(all_maps), strict=True):
        frame = slice(None) if maps.image.ndim == 3 else len(maps.image) // 2
        row = [(scaled(maps.image[frame], _ROW), title)]
        for layer in maps.layers:
            drawn = overlay(maps.image[frame], layer.assigned()[frame], maps.semantic_grid, _ROW, alpha)
            row.append((drawn, _title(maps, layer)))
        rows.append(row)
    return grid_of_panels(side_by_side(rows))


def strip(maps: TokenMaps, tokens: Sequence[int] | None = None, title: str = '', alpha: float = ALPHA) -> np.ndarray:
    """Draw a clip over time: frames, the hard assignment of each layer, and the soft maps of single tokens.

    Args:
        maps: of a clip.
        tokens: whose soft maps in the last layer of the STGM are drawn; by default the 4 that cover most.
        title: of the whole.
        alpha: as of :func:`overlay`.

    Raises:
        ValueError: there is no such token.
    """
    last = [layer for layer in maps.layers if layer.role != 'recover'][-1]
    tokens = most_covering(last, 4) if tokens is None else check_tokens(last.live, tokens)
    frames = evenly(len(maps.image), _FRAMES)
    rows = [[(scaled(maps.image[t], _FRAME), f'frame {t + 1}') for t in frames]]
    names = ['what the\nnetwork sees']
    for layer in maps.layers:
        assigned = layer.assigned()
        rows.append([(overlay(maps.image[t], assigned[t], maps.semantic_grid, _FRAME, alpha), '') for t in frames])
        names.append(_title(maps, layer).replace(', ', ',\n'))
    for token, soft in zip(tokens, last.resized(tokens)):
        peak = float(soft.max())  # one scale over time
        rows.append([(heat(maps.image[t], soft[t], peak, _FRAME), '') for t in frames])
        names.append(f'token {token}')
    return grid_of_panels(rows, title, names=names)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an RGB picture as a PNG that is there as a whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, cv2.imencode('.png', image[..., ::-1])[1].tobytes())


def _title(maps: TokenMaps, layer: LayerMaps) -> str:
    return layer.title if maps.layers[-1].unit == 1 else f'unit {layer.unit}, {layer.title}'
