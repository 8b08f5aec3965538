"""Checks of image files by their headers, before they are decoded.

Pillow reads the size from a file's header: a few bytes can stand for gigabytes of pixels. This file needs Pillow alone
and nothing else of mmstvit: it goes with ``deploy/run_exported.py`` to machines without PyTorch.
"""

import os
import struct
import threading
import warnings
from pathlib import Path

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

MAX_PIXELS = 'MMSTVIT_MAX_PIXELS'
# Where Pillow refuses by default: half a gigabyte in three channels.
_DEFAULT_PIXELS = 178_956_970
_BYTES = 8  # of a pixel, at most: four channels of 16 bits
_HEADERS = 1 << 24  # what a file may have beside its pixels, in bytes
_ORIENTATION = 0x0112  # EXIF tag
_pillow = threading.Lock()  # its limit and its warnings are settings of the process
NOT_DECODED = 'it cannot be decoded, it is incomplete or broken'


class ImageError(ValueError):
    """An image that cannot be read; the message is one line that begins with its name."""


def max_pixels() -> int:
    """Return the limit on the pixels of an image, from the environment variable ``MMSTVIT_MAX_PIXELS``.

    Raises:
        ValueError: the variable is no number.
    """
    limit = os.environ.get(MAX_PIXELS, str(_DEFAULT_PIXELS))
    if not limit.isdecimal() or int(limit) < 1:
        raise ValueError(f'{MAX_PIXELS}={limit}: it must be a number of pixels')
    return int(limit)


def max_bytes() -> int:
    """Return the limit on the bytes of an image file."""
    return _BYTES * max_pixels() + _HEADERS


def check_image_file(filename: str) -> tuple[int, int]:
    """Return width and height of an image by its header; whether all of it is there shows when it is decoded.

    Raises:
        ImageError: it is missing, empty, none or too large.
    """
    if not Path(filename).is_file():
        raise ImageError(f'{filename}: there is no such file')
    limit = max_pixels()
    try:
        size = os.path.getsize(filename)
        if size == 0:
            raise ImageError(f'{filename}: the file is empty')
        width, height = _size(filename)
        fault = _fault_of_png(filename, size)
        if fault:
            raise ImageError(f'{filename}: {fault}')
    except OSError as error:
        why = error.strerror or f'its header is broken ({error})'  # Pillow raises some without a number
        raise ImageError(f'{filename}: {why}') from error
    check_pixels(filename, width, height)
    if size > max_bytes():
        raise ImageError(f'{filename}: it has {size} bytes, more than an image of {limit} pixels can have')
    return width, height


def check_pixels(name: str, width: int, height: int, how: str = 'it has') -> None:
    """Raise :class:`ImageError` for an image of more pixels than :func:`max_pixels`."""
    if width * height > max_pixels():
        raise ImageError(
            f'{name}: {how} {width} x {height} pixels, more than the {max_pixels()} that are read; '
            f'raise {MAX_PIXELS} if this is meant'
        )


def mode_of(filename: str) -> str:
    """Return Pillow's mode of an image that was checked."""
    with _pillow, Image.open(filename) as image:
        return image.mode


def is_turned(filename: str) -> bool:
    """Return whether the EXIF orientation of an image that was checked exchanges its width and height when applied."""
    try:
        with _pillow, Image.open(filename) as image:
            if image.format == 'PNG' and 'exif' not in image.info:
                return False  # Pillow would decode it to look for a tag behind the pixels
            return image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    except Exception:  # Pillow cannot open it or read its tags; then the pixels stay as they are
        return False


def _size(filename: str) -> tuple[int, int]:
    """Return width and height in the header, before EXIF rotation."""
    try:
        with _pillow, warnings.catch_warnings():
            warnings.simplefilter('ignore')
            allowed, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the limit is ours
            try:
                with Image.open(filename) as image:
                    return image.size
            finally:
                Image.MAX_IMAGE_PIXELS = allowed
    except UnidentifiedImageError as error:
        size = _tiff_size(filename)
        if size is None:
            raise ImageError(f'{filename}: it is no image, or of a kind that is not read here') from error
        return size
    except OSError:
        raise
    except Exception as error:  # Pillow's readers raise what a broken header leads them to
        raise ImageError(f'{filename}: its header is broken ({" ".join(str(error).split())})') from error


def _fault_of_png(filename: str, size: int) -> str | None:
    """Check the chunks of a PNG (section 5.3 of its specification).

    OpenCV takes as much memory as a chunk says it is long, and ends the process at some animations.
    """
    with open(filename, 'rb') as file:
        if file.read(8) != b'\x89PNG\r\n\x1a\n':
            return None
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack('>I4s', head)
            if kind in (b'acTL', b'fcTL', b'fdAT'):
                return 'it is an animated PNG, which is not read; save its first picture as a plain one'
            if file.seek(length + 4, os.SEEK_CUR) > size:
                break
            if kind == b'IEND':
                return None
    return 'it is incomplete or broken'


def _tiff_size(filename: str) -> tuple[int, int] | None:
    """Return the size of a TIFF that OpenCV reads and Pillow does not: 16 bits in three channels."""
    try:
        with open(filename, 'rb') as file, _pillow, warnings.catch_warnings():
            warnings.simplefilter('ignore')
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
            return int(tags[TiffImagePlugin.IMAGEWIDTH]), int(tags[TiffImagePlugin.IMAGELENGTH])
    except Exception:  # as above
        return None
