"""Colours that are far apart for the eye."""

import functools

import cv2
import numpy as np

_STEP = 17  # of the colours to choose from, in each channel
_LIGHTNESS = (28, 88)  # of CIELAB, from 0 to 100: what is darker or lighter is taken for shade or for borders
_COLOURFUL = 25  # least distance from grey


@functools.lru_cache(maxsize=8)
def _chosen(number: int) -> np.ndarray:
    values = np.arange(0, 256, _STEP, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(values, values, values, indexing='ij'), -1).reshape(-1, 1, 3)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[:, 0]
    light, colourful = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    kept = (light > _LIGHTNESS[0]) & (light < _LIGHTNESS[1]) & (colourful > _COLOURFUL)
    rgb, lab = rgb[kept, 0], lab[kept]
    chosen = [int(((rgb.astype(int) - (255, 0, 0)) ** 2).sum(1).argmin())]
    nearest = np.full(len(lab), np.inf)
    while len(chosen) < number:
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    return rgb[chosen]


def distinct_colours(number: int) -> np.ndarray:
    """Return colours of which each is as far as can be from those before it, in CIELAB: (number, 3), uint8 RGB.

    The first is red; a colour is the same whatever the number is.
    """
    return _chosen(max(number, 1))[:number].copy()
