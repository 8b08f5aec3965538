"""Containment of data set entries in the folders of the data set."""

import functools
import os
import posixpath
from collections.abc import Iterable, Sequence
from typing import Any

from ..paths import is_address

TRUST_DATA = 'give --trust-data if that is meant'


def roots_of(dataset: Any) -> list[str]:
    """Return the folders of an mmengine data set: its root and its prefixes.

    Links on the way there are the user's. Without any folder, names mean what they say, and the list is empty.
    """
    return real_folders([*(getattr(dataset, 'data_prefix', None) or {}).values(), getattr(dataset, 'data_root', None)])


def real_folders(places: Iterable[Any]) -> list[str]:
    """Resolve links in folders, and normalise addresses (``s3://...``)."""
    return [_plain(p) if is_address(p) else os.path.realpath(p) for p in places if isinstance(p, str) and p]


def leads_outside(path: str, roots: Sequence[str]) -> str | None:
    """Return the real path of a file outside all of the folders, else ``None``.

    Args:
        path: the file, or its address.
        roots: of :func:`roots_of`; an empty list allows everything.
    """
    if not roots:
        return None
    if is_address(path):
        real = _plain(path)
    elif os.path.islink(path):
        real = os.path.realpath(path)
    else:
        # The working folder may change; `..` stays, which behind a link leads elsewhere than its name says.
        folder, name = os.path.split(os.path.join(os.getcwd(), path))
        real = os.path.normpath(os.path.join(_real_folder(folder), name))
    inside = any(real.startswith(os.path.join(root, '')) for root in roots)
    return None if inside else real


def _plain(address: str) -> str:
    """Normalise an address, resolving ``..``."""
    scheme, _, rest = address.partition('://')
    return f'{scheme}://{posixpath.normpath(rest)}'


@functools.lru_cache(maxsize=1 << 14)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)
