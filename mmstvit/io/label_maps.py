"""Checks of the label maps of semantic segmentation, in one line that names the file.

mmseg keeps the lowest 8 bits of what it reads and never compares it with the image or the classes: a wrong map ends a
training in an index error of the loss, on a GPU in an assertion of its kernel, and changes the score of a test unsaid.
"""

import threading

import numpy as np
from PIL import Image

from .image_check import ImageError, check_image_file

_DEEP = ('I', 'I;16', 'I;16B', 'I;16L', 'F')  # modes of Pillow with more than 8 bits
_SHOWN = 8
_pillow = threading.Lock()


def check_map_file(filename: str) -> tuple[int, int]:
    """Return width and height of a label map by its header.

    Raises:
        ImageError: it is missing, no image, incomplete, or has more than 8 bits a pixel.
    """
    size = check_image_file(filename)
    with _pillow, Image.open(filename) as image:
        mode = image.mode
    if mode in _DEEP:
        raise ImageError(
            f'{filename}: it has more than 8 bits a pixel, of which mmseg reads 8: save it as a gray PNG with the '
            'number of a class in each pixel'
        )
    return size


def check_labels(
    filename: str, labels: np.ndarray, size: tuple[int, int], num_classes: int, ignore_index: int = 255
) -> None:
    """Check what was read of a label map.

    Args:
        filename: of the map.
        labels: (height, width) as mmseg loads them, after ``reduce_zero_label`` and ``label_map``.
        size: height and width of its image.
        num_classes: of the model.
        ignore_index: the label that the model's loss leaves out.

    Raises:
        ImageError: it has colours in the place of numbers, another size than its image, or a label of no class.
    """
    if labels.ndim != 2:
        raise ImageError(
            f'{filename}: it is painted in colours, {labels.shape[-1]} channels: a map has the number of a class in '
            'each pixel, as a gray PNG or one with a palette'
        )
    if labels.shape != size:
        (height, width), (rows, columns) = size, labels.shape
        raise ImageError(f'{filename}: it has {columns} x {rows} pixels, and its image has {width} x {height}')
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    wrong = [int(v) for v in values if v >= num_classes and v != ignore_index]
    if wrong:
        shown = ', '.join(map(str, wrong[:_SHOWN])) + (' ...' if len(wrong) > _SHOWN else '')
        raise ImageError(
            f"{filename}: it has the label {shown}, the model's classes end at {num_classes - 1} and ignore_index is "
            f'{ignore_index}: mend the map, or set num_classes or ignore_index of model.decode_head'
        )
