"""Inputs of inference: images and videos, of which a broken one must not lose the others."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import torch
from PIL import Image, ImageOps

from ..io.downloads import DownloadError, download
from ..io.image_check import max_bytes
from ..paths import is_address

# What an input may raise; anything else is a fault of the model or of the code, and ends the inference.
INPUT_ERRORS = (ValueError, OSError)
_SECONDS = 600  # that the download of an input may take


def checked_image(image: Any, gray: bool = False) -> str | np.ndarray:
    """Return the path of an image, or its pixels as OpenCV would read them: (height, width, 3), uint8, BGR.

    Args:
        image: the path of a file, an array of that kind, an image of PIL, which is turned as its EXIF tag says, or a
            tensor (3, height, width), RGB, uint8 or floating-point from 0 to 1.
        gray: whether arrays (height, width) and (height, width, 1) are accepted too.

    Raises:
        ValueError: it is none of them.
        FileNotFoundError: there is no such file.
    """
    if isinstance(image, (str, PathLike)):
        return checked_path(image, 'image')
    image = as_array(image)
    shape = getattr(image, 'shape', (0,))
    if not ((len(shape) == 3 and shape[-1] in ((1, 3) if gray else (3,))) or (gray and len(shape) == 2)) or 0 in shape:
        shape = getattr(image, 'shape', type(image).__name__)
        raise ValueError(f'an image is a path or an array of shape (height, width, 3), got {shape}')
    if image.dtype != np.uint8:
        raise ValueError(f'an image is a path or an array of uint8 from 0 to 255, got {image.dtype}')
    return image


def as_array(image: Any) -> Any:
    """Return an image of PIL or a tensor as an array, see :func:`checked_image`, and anything else as it is.

    Raises:
        ValueError: a tensor of another kind.
    """
    if isinstance(image, Image.Image):
        return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1])
    return _pixels(image) if isinstance(image, torch.Tensor) else image


def _pixels(image: torch.Tensor) -> np.ndarray:
    """Return a tensor (3, height, width), RGB, as (height, width, 3), uint8, BGR."""
    if image.dim() != 3 or len(image) != 3 or 0 in image.shape:
        raise ValueError(
            f'a tensor of an image has the shape (3, height, width), got {tuple(image.shape)}; several are a list'
        )
    if image.is_floating_point():
        if not 0 <= float(image.min()) <= float(image.max()) <= 1:
            least, most = float(image.min()), float(image.max())
            raise ValueError(
                f'a floating-point tensor of an image has values from 0 to 1, got {least:.4g} to {most:.4g}: it is '
                'normalised as the config says'
            )
        image = (image.float() * 255).round().to(torch.uint8)
    elif image.dtype != torch.uint8:
        raise ValueError(f'a tensor of an image is uint8 or floating-point, got {image.dtype}')
    return image.flip(0).permute(1, 2, 0).contiguous().cpu().numpy()


def checked_path(path: str | PathLike, what: str) -> str:
    """Check that a file is there, and return its path as a string.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = str(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no {what} {path}')
    return path


class LocalCopies(ExitStack):
    """Temporary copies of inputs that are addresses; inputs may be downloaded in several threads."""

    def __init__(self) -> None:
        super().__init__()
        self._addresses: dict[str, str] = {}

    def local(self, one: Any) -> Any:
        """Replace an address by the path of a copy, and a path by its string.

        Raises:
            ValueError: it is no address of http or https, or its download is too large, too slow or cut off.
            OSError: it cannot be downloaded.
        """
        if isinstance(one, PathLike):
            return str(one)
        if not isinstance(one, str) or not is_address(one):
            return one
        folder = self.enter_context(TemporaryDirectory(prefix='mmstvit-'))
        copy = _fetch(one, Path(folder))
        self._addresses[copy] = one
        return copy

    def by_address(self, result: Any) -> Any:
        """Replace the names of copies by the addresses in a result or an exception."""
        names = self._addresses.copy()  # other threads may be adding to it
        if isinstance(result, Exception):
            for copy, address in names.items():
                result.args = tuple(a.replace(copy, address) if isinstance(a, str) else a for a in result.args)
        elif names and hasattr(result, 'set_metainfo'):
            metainfo = {key: names[v] for key, v in result.metainfo_items() if isinstance(v, str) and v in names}
            result.set_metainfo(metainfo)
        return result


def _fetch(address: str, folder: Path) -> str:
    """Download an input into a folder of its own, so that it keeps its name."""
    parts = urlparse(address)
    if parts.scheme not in ('http', 'https'):
        raise ValueError(f'{address}: inputs are files, or addresses that begin with http:// or https://')
    name = re.sub(r'[^\w.-]', '_', os.path.basename(unquote(parts.path)))[-100:].lstrip('.')
    copy = folder / (name or 'input')
    try:
        download(address, copy, progress=False, most=max_bytes(), seconds=_SECONDS)
    except DownloadError as error:
        raise ValueError(f'{address}: {error}') from error
    except OSError as error:
        raise OSError(f'{address}: it cannot be downloaded ({error})') from error
    return str(copy)


def infer_each(infer: Callable[[Any], Any], inputs: Iterable) -> Iterator[Any]:
    """Infer one input after the other; an exception stands in the place of one that cannot be read."""
    for one in inputs:
        try:
            result = infer(one)
        except INPUT_ERRORS as error:
            result = error
        yield result
