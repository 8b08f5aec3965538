"""Training and held-out files of a folder with a folder for each class, with or without a split."""

import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from .folders import files_in, folders_in, is_data, shown

TRAIN, VAL, TEST = ('train', 'training'), ('val', 'valid', 'validation'), ('test',)
VAL_SHARE = 0.2  # of the files, where there is one folder


class Part(NamedTuple):
    """The files of one split.

    Attributes:
        root: the folder with the folders of the classes.
        samples: files, with their paths from ``root``, and the numbers of their classes.
        listed: whether they are not all files of ``root``.
    """

    root: Path
    samples: list[tuple[str, int]]
    listed: bool = False


def read_class_folders(folder: Path, endings: Sequence[str], seed: int) -> tuple[tuple[str, ...], dict[str, Part]]:
    """Find the files of each class in each split.

    Args:
        folder: with ``train`` and ``val`` (or ``valid``, ``test``), each with a folder for each class, or with those
            itself: then a fifth of each class, chosen by chance, is held out.
        endings: of the files that count, in lower case.
        seed: of the choice.

    Returns:
        The names of the classes, and the parts ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        UsageError: there are fewer than two classes, one of them has no files, files lie outside the folders of the
            classes, or the splits differ in their classes.
    """
    train, val, test = (_first(folder, names) for names in (TRAIN, VAL, TEST))
    if train is None and (val or test):
        raise UsageError(f'{folder} has a folder {(val or test).name} and no folder train')
    if val and test and not folders_in(str(test)):
        test = None  # images without labels
    files = _by_class(train or folder, endings)
    if len(files) < 2:
        raise UsageError(
            f'{train or folder} has {len(files)} folders of classes ({shown(list(files))}): give one folder for each '
            'of two classes or more'
        )
    classes = tuple(files)
    whole = Part(train or folder, _samples(files.values()))
    held_out = {place: Part(place, _held_out(place, classes, endings)) for place in {val, test} - {None}}
    if held_out:
        return classes, dict(train=whole, val=held_out[val or test], test=held_out[test or val])
    kept, chosen = (Part(whole.root, _samples(part), listed=True) for part in _split(files, seed, whole.root))
    return classes, dict(train=kept, val=chosen, test=chosen)


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _by_class(root: Path, endings: Sequence[str]) -> dict[str, list[str]]:
    """The files of each class by its name."""
    endings = tuple(endings)
    with os.scandir(root) as entries:
        outside = sorted(entry.name for entry in entries if entry.is_file() and is_data(entry.name))
    stray = [name for name in outside if name.lower().endswith(endings)]
    if stray:
        raise UsageError(
            f'{root} holds {len(stray)} files itself ({shown(stray)}): put each into the folder of its class'
        )
    names = folders_in(str(root)) or []
    if 'annotations' in names:
        raise UsageError(f'{root} has a folder annotations, as a COCO folder for detectors has: give class folders')
    found = {name: files_in(str(root), name) for name in names}
    files = {name: [file for file in found[name] if file.lower().endswith(endings)] for name in names}
    empty = [name for name in names if not files[name]]
    if empty:
        raise UsageError(
            f'{root}: there are no files with the endings {", ".join(endings)} in {shown(empty)}; what has no class '
            'belongs elsewhere'
        )
    return files


def _held_out(root: Path, classes: Sequence[str], endings: Sequence[str]) -> list[tuple[str, int]]:
    files = _by_class(root, endings)
    for names, other, what in ((files, classes, 'lacks classes of'), (classes, files, 'has folders that are not in')):
        differing = [name for name in other if name not in names]
        if differing:
            raise UsageError(f'{root} {what} the training set: {shown(differing)}')
    return _samples(files.values())


def _samples(files: Iterable[list[str]]) -> list[tuple[str, int]]:
    return [(file, number) for number, found in enumerate(files) for file in found]


def _split(files: dict[str, list[str]], seed: int, root: Path) -> tuple[list, list]:
    """Hold a share of each class out, at least one file."""
    chance, kept, chosen = random.Random(seed), [], []
    for name, found in files.items():
        if len(found) < 2:
            raise UsageError(f'{root}/{name} has one file: it takes two to train on one and validate on the other')
        held_out = set(chance.sample(found, max(round(VAL_SHARE * len(found)), 1)))
        kept.append([file for file in found if file not in held_out])
        chosen.append([file for file in found if file in held_out])
    return kept, chosen


def write_list(part: Part, path: Path) -> None:
    """Write the annotation file of a part, as the toolboxes read it: a file and the number of its class a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{file} {number}\n' for file, number in part.samples), encoding='utf-8')
