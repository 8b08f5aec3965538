"""What is given to inference: images and videos, of which a broken one must not lose the others."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlparse

from ..io.downloads import DownloadError, download
from ..io.image_check import max_bytes
from ..paths import is_address

# What an input may raise; anything else is a fault of the model or of the code, and ends the inference.
INPUT_ERRORS = (ValueError, OSError)
_SECONDS = 600  # that the download of an input may take


def checked_image(image: Any) -> Any:
    """An image as the toolboxes take it: a path as a string, or an array (height, width, 3).

    Raises:
        ValueError: it is neither.
        FileNotFoundError: there is no such file.
    """
    if isinstance(image, (str, PathLike)):
        return checked_path(image, 'image')
    if getattr(image, 'ndim', 0) != 3 or image.shape[-1] != 3 or 0 in image.shape:
        shape = getattr(image, 'shape', type(image).__name__)
        raise ValueError(f'an image is a path or an array of shape (height, width, 3), got {shape}')
    return image


def checked_path(path: str | PathLike, what: str) -> str:
    """A path as a string.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = str(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no {what} {path}')
    return path


@contextmanager
def fetched(inputs: list) -> Iterator[tuple[list, Callable[[list], list]]]:
    """The inputs, with a local copy in the place of each address; copies are there while it is open.

    Yields:
        The inputs to infer, without those that cannot be downloaded, and a function that puts the exceptions of these
        into the list of results, and the addresses into the place of the copies' names in it.
    """
    remote = [isinstance(one, str) and is_address(one) for one in inputs]
    if not any(remote):
        yield inputs, list
        return
    with TemporaryDirectory(prefix='mmstvit-') as folder:
        taken, names, failed = [], {}, {}
        for i, one in enumerate(inputs):
            if remote[i]:
                try:
                    copy = _fetch(one, Path(folder, str(i)))
                except INPUT_ERRORS as error:
                    failed[i] = error
                    continue
                names[copy], one = one, copy
            taken.append(one)

        def settled(results: list) -> list:
            rest = iter(results)
            return [failed[i] if i in failed else _renamed(next(rest), names) for i in range(len(inputs))]

        yield taken, settled


def _fetch(address: str, folder: Path) -> str:
    """Download an input into a folder of its own, so that it keeps its name."""
    parts = urlparse(address)
    if parts.scheme not in ('http', 'https'):
        raise ValueError(f'{address}: inputs are files, or addresses that begin with http:// or https://')
    folder.mkdir()
    name = re.sub(r'[^\w.-]', '_', os.path.basename(unquote(parts.path)))[-100:].lstrip('.')
    copy = folder / (name or 'input')
    try:
        download(address, copy, progress=False, most=max_bytes(), seconds=_SECONDS)
    except DownloadError as error:
        raise ValueError(f'{address}: {error}') from error
    except OSError as error:
        raise OSError(f'{address}: it cannot be downloaded ({error})') from error
    return str(copy)


def _renamed(result: Any, names: dict[str, str]) -> Any:
    """A result, or an exception, that speaks of the address and not of its copy."""
    if isinstance(result, Exception):
        for copy, address in names.items():
            result.args = tuple(a.replace(copy, address) if isinstance(a, str) else a for a in result.args)
    elif hasattr(result, 'set_metainfo'):
        result.set_metainfo({key: names[v] for key, v in result.metainfo_items() if isinstance(v, str) and v in names})
    return result


def infer_each(infer: Callable[[Any], Any], inputs: Iterable) -> Iterator[Any]:
    """Infer one input after the other; an exception stands in the place of one that cannot be read."""
    for one in inputs:
        try:
            result = infer(one)
        except INPUT_ERRORS as error:
            result = error
        yield result


def settle(results: list, many: bool, return_exceptions: bool) -> Any:
    """What inference gives back: of many inputs the list, of one its result.

    Raises:
        ValueError, OSError: the first that an input has raised, unless ``return_exceptions``; its attribute ``results``
            is the whole list.
    """
    errors = [result for result in results if isinstance(result, INPUT_ERRORS)]
    if errors and not (many and return_exceptions):
        errors[0].results = results
        raise errors[0]
    return results if many else results[0]
