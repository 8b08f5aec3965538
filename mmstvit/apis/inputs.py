"""What is given to inference: images and videos, of which a broken one must not lose the others."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

# What an input may raise; anything else is a fault of the model or of the code, and ends the inference.
INPUT_ERRORS = (ValueError, OSError)


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
    """A path as a string; names with a scheme are left to mmengine.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = str(path)
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(f'there is no {what} {path}')
    return path


def infer_each(infer: Callable[[Any], Any], inputs: list) -> list:
    """Infer one input after the other; an exception stands in the place of one that cannot be read."""
    results = []
    for one in inputs:
        try:
            results.append(infer(one))
        except INPUT_ERRORS as error:
            results.append(error)
    return results


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
