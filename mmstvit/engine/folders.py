"""Data sets whose classes are folders: numbered by name over the training set, without hidden folders and files.

mmpretrain numbers the folders of each split on its own, so that a class that one split lacks moves all that follow.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from ..errors import UsageError

# Of file systems and archives: thumbnails, resource forks, recycle bins.
_NOT_DATA = ('@eaDir', '__MACOSX', '#recycle', 'Thumbs.db', 'desktop.ini')
_SHOWN = 8


def is_data(name: str) -> bool:
    return not name.startswith('.') and name not in _NOT_DATA


def folders_in(root: str) -> list[str] | None:
    """The names of the folders in a local one, sorted, without hidden ones; ``None`` where it is not there."""
    if not os.path.isdir(root):
        return None
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if is_data(entry.name) and entry.is_dir())


def is_folder_set(dataset: Any) -> bool:
    """Whether a data set, which need not be read yet, is one of mmpretrain that finds its files in local folders."""
    finds = getattr(getattr(type(dataset), '_find_samples', None), '__module__', None)
    return finds == 'mmpretrain.datasets.custom' and not dataset.ann_file and os.path.isdir(dataset.img_prefix)


def training_classes(parts: Sequence[dict]) -> tuple[str, ...] | None:
    """The names by which folders are numbered.

    Args:
        parts: the configs of the data sets that are trained on.

    Returns:
        ``metainfo.classes`` of the config where it has them, else the names of all folders; ``None`` where there are
        neither.
    """
    names: set[str] = set()
    for part in parts:
        classes = (part.get('metainfo') or {}).get('classes') or part.get('classes')
        built: Any = None
        with contextlib.suppress(Exception):  # what is wrong with it is told when it is read
            built = DATASETS.build(dict(part, lazy_init=True, pipeline=[]))
        folders = set(folders_in(built.img_prefix) or ()) if is_folder_set(built) and built.with_label else set()
        if isinstance(classes, (list, tuple)) and folders <= set(classes):
            return tuple(classes)
        names |= folders
    return tuple(sorted(names)) or None


def folder_methods(dataset: BaseDataset, classes: Sequence[str] | None) -> dict[str, Callable]:
    """The method by which a folder data set finds its files, numbered by ``classes``; of others nothing."""
    return dict(_find_samples=partial(_find_samples, dataset, classes)) if is_folder_set(dataset) else {}


def _find_samples(dataset: Any, classes: Sequence[str] | None) -> list:
    """What mmpretrain's method of this name returns: files with the numbers of their classes, or files alone."""
    root = dataset.img_prefix
    if dataset.with_label:
        folders = folders_in(root) or []
        order = _order(dataset, root, folders, classes)
        numbers = dataset.folder_to_idx = {name: number for number, name in enumerate(order)}
        listed = [(file, numbers[name]) for name in folders for file in files_in(root, name)]
    else:
        listed = [(file, None) for file in files_in(root)]
    samples = [(file, number) for file, number in listed if dataset.is_valid_file(file)]
    unread = Counter(PurePath(file).suffix.lower() for file, _ in listed if not dataset.is_valid_file(file))
    if not samples:
        raise UsageError(
            f'{root}: there are no files with the endings {", ".join(sorted(dataset.extensions))}'
            f'{" in its folders" if dataset.with_label else ""}{_endings(unread)}; check the data folder'
        )
    if unread:
        kinds = ' or '.join(sorted(dataset.extensions))
        print_log(
            f'{sum(unread.values())} of {len(listed)} files in {root} are no {kinds}{_endings(unread)}', 'current'
        )
    return samples if dataset.with_label else [file for file, _ in samples]


def _endings(unread: Counter) -> str:
    """``': *.webp 24'`` for files that are not read."""
    endings = ', '.join(f'{f"*{ending}" if ending else "without one"} {n}' for ending, n in unread.most_common(_SHOWN))
    return endings and f': {endings}'


def files_in(root: str, folder: str = '') -> list[str]:
    """The files below a folder, also in linked folders and without hidden ones, with their paths from ``root``."""
    files, top = [], os.path.join(root, folder)
    above = {top: {os.path.realpath(top)}}  # the real folders on the way to each: a link back to one has no end
    for place, folders, names in os.walk(top, followlinks=True):
        inside = {name: os.path.realpath(os.path.join(place, name)) for name in folders if is_data(name)}
        on_the_way = above.pop(place)
        folders[:] = [name for name, real in inside.items() if real not in on_the_way]
        above.update({os.path.join(place, name): on_the_way | {inside[name]} for name in folders})
        below = os.path.relpath(place, root)
        files += [name if below == '.' else f'{below}/{name}' for name in names if is_data(name)]
    return sorted(files)


def _order(dataset: Any, root: str, folders: list[str], classes: Sequence[str] | None) -> Sequence[str]:
    """The names of folders in the order of their numbers."""
    own_classes = dataset.CLASSES
    if own_classes is not None and set(folders) <= set(own_classes):
        return own_classes
    order = folders if classes is None else classes
    unknown = sorted(set(folders) - set(order))
    if unknown:
        raise UsageError(
            f'{root} has folders that are no class of the training set: {shown(unknown)}; its classes are '
            f'{shown(order)}: check the data folder'
        )
    if own_classes is None:
        dataset._metainfo['classes'] = tuple(order)
    elif len(own_classes) != len(order):
        raise UsageError(
            f'{root} has {len(order)} folders, {shown(order)}, and metainfo.classes has {len(own_classes)} names, '
            f'{shown(own_classes)}: check the data folder'
        )
    return order


def shown(names: Sequence[str]) -> str:
    """The first of some names, for one line."""
    return ', '.join(map(str, names[:_SHOWN])) + (' ...' if len(names) > _SHOWN else '') or 'none'
