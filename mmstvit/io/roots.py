"""Containment of data set entries in the folders of the data set."""

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
    return real_paths([*(getattr(dataset, 'data_prefix', None) or {}).values(), getattr(dataset, 'data_root', None)])


def real_paths(places: Iterable[Any]) -> list[str]:
    """Resolve links in paths, and normalise addresses (``s3://...``)."""
    return [_plain(p) if is_address(p) else os.path.realpath(p) for p in places if isinstance(p, str) and p]


def leads_outside(path: str, roots: Sequence[str]) -> str | None:
    """Return the real path of a file outside all of the folders, else ``None``.

    Args:
        path: the file, or its address.
        roots: of :func:`roots_of`; an empty list allows everything.
    """
    if not roots:
        return None
    try:
        (real,) = real_paths([path])
    except ValueError:  # a null byte: no file has such a name, and reading it says so
        return None
    return None if any(real.startswith(os.path.join(root, '')) for root in roots) else real


def _plain(address: str) -> str:
    """Normalise an address, resolving ``..``."""
    scheme, _, rest = address.partition('://')
    return f'{scheme}://{posixpath.normpath(rest)}'
