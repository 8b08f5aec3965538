"""Training and held-out parts of a folder of one's own data: class folders, or files in the format of COCO."""

import json
import os
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from ..io.files import write_whole
from .coco_file import read_coco
from .folders import files_in, folders_in, is_data, shown

_SPLITS = dict(train=('train', 'training'), val=('val', 'valid', 'validation'), test=('test',))
_SHARE = 0.2  # of what is held out, where there is no split
_ROBOFLOW = '_annotations.coco.json'
_NOT_LISTED = re.compile('^\\s|[\t\n\r\ud800-\udfff]')  # in names: what a line cannot have; and no Unicode
_NO_BOXES = re.compile(r'(captions|image_info|panoptic|person_keypoints|stuff)_')  # beside COCO's own instances_*


class Part(NamedTuple):
    """One split.

    Attributes:
        root: the folder of its images or clips.
        file: its annotation file, which is still to be written where there is a ``text``; ``None`` where the split is
            all of ``root``, with a folder for each class.
        number: of its images or clips.
        text: of the annotation file of a split that was made here.
    """

    root: Path
    file: Path | None
    number: int
    text: str | None = None


Parts = tuple[tuple[str, ...], dict[str, Part]]


def _held_out(items: Sequence, chance: random.Random, where: str, what: str) -> set:
    """Choose a share of some items, at least one of them."""
    if len(items) < 2:
        raise UsageError(f'{where} has one {what}: it takes two to train on one and validate on the other')
    return set(chance.sample(items, max(round(_SHARE * len(items)), 1)))


# ---------------------------------------------------------------------------------------------------- class folders
def read_class_folders(
    folder: Path, endings: Sequence[str], config: Path, seed: int, listed: bool = False, delimiter: str = ' '
) -> Parts:
    """Find the files of each class in each split.

    Args:
        folder: with ``train`` and ``val`` (or ``valid``, ``test``), each with a folder for each class, or with those
            itself: then a fifth of each class, chosen by chance, is held out.
        endings: of the files that count, in lower case.
        config: beside which the annotation files of such a split belong, ``{config}_train.txt`` and so on: a line has a
            file and the number of its class.
        seed: of the choice.
        listed: whether folders that are split have annotation files too.
        delimiter: between a file and the number.

    Returns:
        The names of the classes, and the parts ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        UsageError: there are fewer than two classes, one of them has no files, files lie outside the folders of the
            classes or have names that cannot be listed, or the splits differ in their classes.
    """
    train, val, test = (
        next((folder / name for name in names if (folder / name).is_dir()), None) for names in _SPLITS.values()
    )
    other = val or test
    if train is None and other:
        raise UsageError(f'{folder} has a folder {other.name} and no folder train')
    if val and test and not folders_in(str(test)):
        test = None  # images without labels
    root = train or folder
    files = _by_class(root, endings)
    if len(files) < 2:
        raise UsageError(
            f'{root} has {len(files)} folders of classes ({shown(list(files))}): give one folder for each of two '
            'classes or more'
        )
    places = dict(train=(root, files))
    for split, place in dict(val=val or test, test=val and test).items():
        if place:
            places[split] = place, _of_classes(place, files, endings)
    if 'val' not in places:
        listed, (kept, held_out) = True, _split_classes(files, random.Random(seed), root)
        places = dict(train=(root, kept), val=(root, held_out))
    parts = {}
    for split, (place, by_class) in places.items():
        number = sum(map(len, by_class.values()))
        parts[split] = Part(place, None, number)
        if listed:
            parts[split] = Part(place, _list_file(config, f'{split}.txt'), number, _listed(place, by_class, delimiter))
    return tuple(files), {**parts, 'test': parts.get('test', parts['val'])}


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
    files = {name: [file for file in files_in(str(root), name) if file.lower().endswith(endings)] for name in names}
    empty = [name for name in names if not files[name]]
    if empty:
        raise UsageError(
            f'{root}: there are no files with the endings {", ".join(endings)} in {shown(empty)}; what has no class '
            'belongs elsewhere'
        )
    return files


def _of_classes(root: Path, classes: dict[str, list[str]], endings: Sequence[str]) -> dict[str, list[str]]:
    """The files of a held-out folder, whose classes must be those of the training set."""
    files = _by_class(root, endings)
    for names, other, what in ((files, classes, 'lacks classes of'), (classes, files, 'has folders that are not in')):
        differing = [name for name in other if name not in names]
        if differing:
            raise UsageError(f'{root} {what} the training set: {shown(differing)}')
    return files


def _split_classes(files: dict[str, list[str]], chance: random.Random, root: Path) -> tuple[dict, dict]:
    """Hold a share of the files of each class out."""
    train, val = {}, {}
    for name, names in files.items():
        held_out = _held_out(names, chance, f'{root}/{name}', 'file')
        train[name] = [file for file in names if file not in held_out]
        val[name] = [file for file in names if file in held_out]
    return train, val


def _listed(root: Path, files: dict[str, list[str]], delimiter: str) -> str:
    """The lines of an annotation file."""
    lines = [(file, number) for number, names in enumerate(files.values()) for file in names]
    bad = [file for file, _ in lines if _NOT_LISTED.search(file)]
    if bad:
        raise UsageError(
            f'{root} has {len(bad)} files that no list can name ({shown(list(map(ascii, bad)))}): rename them, without '
            'tabs, line breaks, a space in front or bytes that are no UTF-8'
        )
    return ''.join(f'{file}{delimiter}{number}\n' for file, number in lines)


# ------------------------------------------------------------------------------------------------------ COCO folders
def read_coco_folder(folder: Path, config: Path, seed: int) -> Parts:
    """Find the annotation files and images of a COCO folder.

    Args:
        folder: with ``annotations/*.json``, named by their splits, or with ``_annotations.coco.json`` in ``train`` and
            ``valid`` (Roboflow). Of a single file a fifth of the images, chosen by chance, is held out.
        config: beside which the annotation files of such a split belong, ``{config}_train.json`` and so on.
        seed: of the choice.

    Returns:
        The names of the classes, in the order of the file, and the parts ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        UsageError: the files cannot be told apart, or one is not valid or its images are not there.
    """
    files = _find_files(folder)
    contents = {name: read_coco(str(file)) for name, file in files.items()}
    for name, content in contents.items():
        if not content['images'] or not content.get('annotations'):
            raise UsageError(f'{files[name]} has no images, or no annotations of them')
    images = {name: _find_images(folder, files[name], content) for name, content in contents.items()}
    classes = _classes(contents['train'])
    if not classes:
        raise UsageError(f'{files["train"]} has no categories')
    texts: dict[str, str] = {}
    if len(files) == 1:
        contents = _split(contents['train'], random.Random(seed), files['train'])
        files = {name: _list_file(config, f'{name}.json') for name in contents}
        images = dict.fromkeys(contents, images['train'])
        texts = {name: json.dumps(content) for name, content in contents.items()}
    parts = {
        name: Part(images[name], files[name], len(content['images']), texts.get(name))
        for name, content in contents.items()
    }
    held_out = parts.get('val') or parts['test']
    return classes, dict(train=parts['train'], val=held_out, test=parts.get('test', held_out))


def _find_files(folder: Path) -> dict[str, Path]:
    """The annotation files by split: of ``'train'`` always, ``'val'`` and ``'test'`` where there are some."""
    roboflow = {
        split: folder / name / _ROBOFLOW
        for split, names in _SPLITS.items()
        for name in names[::-1]
        if (folder / name / _ROBOFLOW).is_file()
    }
    if 'train' in roboflow:
        return roboflow
    every = sorted((folder / 'annotations').glob('*.json')) or sorted(folder.glob('*.json'))
    every = [file for file in every if not _NO_BOXES.match(file.name)]
    if len(every) == 1:
        return dict(train=every[0])
    by_split = {split: [file for file in every if split in file.stem.lower()] for split in _SPLITS}
    names = shown([file.name for file in every])
    if not every or not by_split['train'] or not (by_split['val'] or by_split['test']):
        raise UsageError(
            f'{folder} must have annotations/*.json in the format of COCO, one file or those of train and val by name, '
            f'or {_ROBOFLOW} in train and valid; its files: {names}'
        )
    several = [split for split, files in by_split.items() if len(files) > 1]
    if several:
        raise UsageError(f'{folder} has several annotation files of {several[0]}: {names}; leave one of each')
    return {split: files[0] for split, files in by_split.items() if files}


def _find_images(folder: Path, file: Path, content: dict) -> Path:
    """The folder of a file's images: where the first of them is."""
    tag = file.stem.split('_')[-1]
    below = [tag, re.sub(r'\d+$', '', tag), '']
    places = [file.parent, *(folder / name for name in below), *(folder / 'images' / name for name in below)]
    name = content['images'][0].get('file_name')
    for place in places:
        if name and os.path.isfile(place / name):
            return place
    where = ', '.join(dict.fromkeys(str(place) for place in places))
    raise UsageError(f'the image {name} of {file} is in none of {where}: put the images there')


def _classes(content: dict) -> tuple[str, ...]:
    """Names of categories, without those that stand for a group of others and have no annotations (Roboflow)."""
    used = {annotation['category_id'] for annotation in content['annotations']}
    groups = {category.get('supercategory') for category in content['categories']}
    categories = [c for c in content['categories'] if c['id'] in used or c.get('name') not in groups]
    categories = categories or content['categories']
    return tuple(str(category.get('name')) for category in categories)


def _split(content: dict, chance: random.Random, file: Path) -> dict[str, dict]:
    """Hold a share of the images out, with their annotations."""
    held_out = _held_out([image['id'] for image in content['images']], chance, str(file), 'image')
    return {
        name: dict(
            content,
            images=[image for image in content['images'] if (image['id'] in held_out) == (name == 'val')],
            annotations=[a for a in content['annotations'] if (a['image_id'] in held_out) == (name == 'val')],
        )
        for name in ('train', 'val')
    }


# ---------------------------------------------------------------------------------------------------- the split's files
def _list_file(config: Path, name: str) -> Path:
    """An annotation file of a split: named by the config, as a work dir may hold those of several data sets."""
    return config.with_name(f'{config.stem}_{name}')


def check_lists(parts: Iterable[Part], config: Path) -> None:
    """Refuse annotation files that would be written over one that is not of an earlier training of this config.

    Raises:
        UsageError: there is such a file, with another content, and the config that is there does not name it.
    """
    own = config.read_text(encoding='utf-8', errors='replace') if config.is_file() else ''
    for file, text in _texts(parts).items():
        if file.exists() and file.name not in own and file.read_bytes() != text.encode():
            raise UsageError(
                f'{file} is there, and not by an earlier run of this command: give another --work-dir, or move the file'
            )


def write_lists(parts: Iterable[Part]) -> None:
    """Write the annotation files of a split that was made here, their folder too."""
    for file, text in _texts(parts).items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, text.encode())


def _texts(parts: Iterable[Part]) -> dict[Path, str]:
    return {part.file: part.text for part in parts if part.file is not None and part.text is not None}
