"""Image files that cannot be read or must not be: said in one line with the file's name.

Pillow reads the size from a file's header before OpenCV decodes it: a few bytes can stand for gigabytes of pixels.
"""

import os
import re
import struct
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from .roots import TRUST_DATA, leads_outside

MAX_PIXELS = 'MMSTVIT_MAX_PIXELS'
# Where Pillow refuses by default: half a gigabyte in three channels.
_DEFAULT_PIXELS = 178_956_970
_BYTES = 8  # of a pixel, at most: four channels of 16 bits
_HEADERS = 1 << 24  # what a file may have beside its pixels, in bytes


class ImageError(ValueError):
    """An image that is not read; its text is one line that begins with the file's name."""


def max_pixels() -> int:
    """The most pixels that an image may have, from the environment variable ``MMSTVIT_MAX_PIXELS``.

    Raises:
        ValueError: the variable is no number.
    """
    given = os.environ.get(MAX_PIXELS, str(_DEFAULT_PIXELS))
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f'{MAX_PIXELS}={given}: it must be a number of pixels')
    return int(given)


def check_image_file(filename: str) -> None:
    """Refuse a file that is not there, is empty, is no image or has too many pixels, by its header.

    Names with a scheme (``s3://...``) are left to mmengine. Whether all of an image is there shows when it is decoded.

    Raises:
        ImageError: the file's name, and what is wrong with it.
    """
    if '://' in filename:
        return
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
    if size > _BYTES * limit + _HEADERS:
        raise ImageError(f'{filename}: it has {size} bytes, more than an image of {limit} pixels can have')


def check_pixels(name: str, width: int, height: int, how: str = 'it has') -> None:
    """Refuse a picture of more pixels than :func:`max_pixels`.

    Raises:
        ImageError: its name and size.
    """
    if width * height > max_pixels():
        raise ImageError(
            f'{name}: {how} {width} x {height} pixels, more than the {max_pixels()} that are read; '
            f'raise {MAX_PIXELS} if this is meant'
        )


def _size(filename: str) -> tuple[int, int]:
    """Width and height that the header tells, before the picture is turned."""
    allowed, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the limit is ours
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(filename) as image:
                return image.size
    except UnidentifiedImageError as error:
        size = _tiff_size(filename)
        if size is None:
            raise ImageError(f'{filename}: it is no image, or of a kind that is not read here') from error
        return size
    except OSError:
        raise
    except Exception as error:  # Pillow's readers raise what a broken header leads them to
        raise ImageError(f'{filename}: its header is broken ({" ".join(str(error).split())})') from error
    finally:
        Image.MAX_IMAGE_PIXELS = allowed


def _fault_of_png(filename: str, size: int) -> str | None:
    """Walk over the chunks of a PNG (section 5.3 of its specification).

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
    """The size of a TIFF of pixels that OpenCV reads and Pillow does not, 16 bits in three channels."""
    try:
        with open(filename, 'rb') as file, warnings.catch_warnings():
            warnings.simplefilter('ignore')
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
            return int(tags[TiffImagePlugin.IMAGEWIDTH]), int(tags[TiffImagePlugin.IMAGELENGTH])
    except Exception:  # as above
        return None


def guard_images(
    steps: Sequence[Callable], roots: Sequence[str] = (), num_classes: int | None = None
) -> list[Callable]:
    """The steps of a built pipeline, of which those that load and resize tell what is wrong with a file.

    They raise :class:`ImageError` where a file is outside ``roots``, cannot be read, has a label that the model has no
    class for, or would become a picture of no pixels or of too many. The other steps stay as they are.
    """
    guarded = []
    for step in steps:
        name = type(step).__name__
        if name == 'LoadImageFromFile':
            step = _Loading(step, roots, num_classes)
        elif name == 'LoadAnnotations':
            step = _Annotating(step)
        elif 'Resize' in name:
            step = _Resizing(step)
        guarded.append(step)
    return guarded


class _Loading:
    def __init__(self, step: Callable, roots: Sequence[str], num_classes: int | None) -> None:
        self.step, self.roots, self.num_classes = step, roots, num_classes

    def __call__(self, results: dict) -> dict | None:
        filename = results['img_path']
        for path in (filename, results.get('seg_map_path')):
            real = leads_outside(path, self.roots) if path else None
            if real:
                raise ImageError(f"{path}: it leads out of the data set's folder, to {real}; {TRUST_DATA}")
        label = results.get('gt_label')
        if self.num_classes is not None and isinstance(label, int) and not 0 <= label < self.num_classes:
            raise ImageError(
                f"{filename}: it has the label {label}, and the model's classes end at {self.num_classes - 1}"
            )
        if not getattr(self.step, 'backend_args', None) and not getattr(self.step, 'file_client_args', None):
            check_image_file(filename)
        try:
            return self.step(results)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # whatever a broken file raises, it is the file's fault
            raise ImageError(f'{filename}: it cannot be decoded, it is incomplete or broken') from error


class _Annotating:
    def __init__(self, step: Callable) -> None:
        self.step, self.with_mask = step, getattr(step, 'with_mask', False)

    def __call__(self, results: dict) -> dict | None:
        try:
            return self.step(results)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # masks are unpacked here
            raise ImageError(
                f'{results["img_path"]}: its annotations cannot be read ({" ".join(str(error).split())})'
            ) from error


class _Resizing:
    def __init__(self, step: Callable) -> None:
        self.step = step

    def __call__(self, results: dict) -> dict | None:
        if 'img' not in results:  # frames of a video
            return self.step(results)
        name, (height, width) = results.get('img_path') or 'the image', results['img'].shape[:2]
        if type(self.step).__name__ == 'ResizeEdge':
            check_pixels(name, *_resized(width, height, self.step.edge, self.step.scale), 'it would be resized to')
        try:
            return self.step(results)
        except cv2.error as error:
            raise ImageError(
                f'{name}: {width} x {height} pixels cannot be resized as the config asks ({_reason(error)})'
            ) from error


def _resized(width: int, height: int, edge: str, scale: int) -> tuple[int, int]:
    """Width and height that mmpretrain's ``ResizeEdge`` gives."""
    by_width = {'short': width < height, 'long': width > height, 'width': True, 'height': False}[edge]
    return (scale, scale * height // width) if by_width else (scale * width // height, scale)


def _reason(error: cv2.error) -> str:
    found = re.search(r'error: \([^)]*\) ?(.*)', ' '.join(str(error).split()))
    return found[1][:120] if found else 'OpenCV refuses'
