"""Whether the entries of a data set stay in its folder: lists, annotations and links may come from others."""

import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any

TRUST_DATA = 'give --trust-data if that is meant'


def roots_of(dataset: Any) -> list[str]:
    """The folders of a data set of mmengine, with links resolved: its root, and what is put before file names.

    Links on the way there are the user's. Without any folder, names mean what they say, and the list is empty.
    """
    return real_folders([*(getattr(dataset, 'data_prefix', None) or {}).values(), getattr(dataset, 'data_root', None)])


def real_folders(places: Iterable[Any]) -> list[str]:
    """The local folders among ``places``, with links resolved."""
    return [os.path.realpath(p) for p in places if isinstance(p, str) and p and '://' not in p]


def leads_outside(path: str, roots: Sequence[str]) -> str | None:
    """Where a file really is, if that is in none of the folders, by ``..``, an absolute path or a link.

    Args:
        path: the file; names with a scheme (``s3://...``) are left to mmengine.
        roots: of :func:`roots_of`; an empty list allows everything.
    """
    if not roots or '://' in path:
        return None
    if os.path.islink(path):
        real = os.path.realpath(path)
    else:
        folder, name = os.path.split(path)
        real = os.path.normpath(os.path.join(_real_folder(folder), name))
    inside = any(real.startswith(os.path.join(root, '')) for root in roots)
    return None if inside else real


@functools.lru_cache(maxsize=1 << 14)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)
