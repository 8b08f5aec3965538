"""Training and held-out annotation files of a folder in COCO's format, and where their images are."""

import json
import os
import random
import re
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from .class_folders import TEST, TRAIN, VAL, VAL_SHARE
from .coco_file import read_coco
from .folders import shown

_ROBOFLOW = '_annotations.coco.json'
_NO_BOXES = re.compile(r'(captions|image_info|panoptic|person_keypoints|stuff)_')  # beside COCO's own instances_*


class CocoPart(NamedTuple):
    """The annotation file of one split, the folder of its images, and their number."""

    file: Path
    images: Path
    number: int


def read_coco_folder(folder: Path, lists: Path, seed: int) -> tuple[tuple[str, ...], dict[str, CocoPart]]:
    """Find the annotation files and images of a COCO folder.

    Args:
        folder: with ``annotations/*.json``, named by their splits, or with ``_annotations.coco.json`` in ``train`` and
            ``valid`` (Roboflow). Of a single file a fifth of the images, chosen by chance, is held out.
        lists: where the annotations of such a split are written to.
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
    if len(files) == 1:
        parts = zip(('train', 'val'), _split(contents['train'], random.Random(seed), files['train']), strict=True)
        contents = dict(parts)
        files = {name: lists / f'{name}.json' for name in contents}
        images = dict.fromkeys(contents, images['train'])
        lists.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            files[name].write_text(json.dumps(content))
    found = {name: CocoPart(files[name], images[name], len(content['images'])) for name, content in contents.items()}
    held_out = found.get('val') or found['test']
    return classes, dict(train=found['train'], val=held_out, test=found.get('test', held_out))


def _find_files(folder: Path) -> dict[str, Path]:
    """The annotation files by split: of ``'train'`` always, ``'val'`` and ``'test'`` where there are some."""
    splits = dict(train=TRAIN, val=VAL, test=TEST)
    roboflow = {
        split: folder / name / _ROBOFLOW
        for split, names in splits.items()
        for name in names[::-1]
        if (folder / name / _ROBOFLOW).is_file()
    }
    if 'train' in roboflow:
        return roboflow
    every = sorted((folder / 'annotations').glob('*.json')) or sorted(folder.glob('*.json'))
    every = [file for file in every if not _NO_BOXES.match(file.name)]
    if len(every) == 1:
        return dict(train=every[0])
    found = {split: [file for file in every if split in file.stem.lower()] for split in splits}
    names = shown([file.name for file in every])
    if not every or not found['train'] or not (found['val'] or found['test']):
        raise UsageError(
            f'{folder} must have annotations/*.json in the format of COCO, one file or those of train and val by name, '
            f'or {_ROBOFLOW} in train and valid; its files: {names}'
        )
    several = [split for split, files in found.items() if len(files) > 1]
    if several:
        raise UsageError(f'{folder} has several annotation files of {several[0]}: {names}; leave one of each')
    return {split: files[0] for split, files in found.items() if files}


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
    kept = [c for c in content['categories'] if c['id'] in used or c.get('name') not in groups]
    kept = kept or content['categories']
    return tuple(str(category.get('name')) for category in kept)


def _split(content: dict, chance: random.Random, file: Path) -> tuple[dict, dict]:
    """Hold a share of the images out, with their annotations."""
    ids = [image['id'] for image in content['images']]
    if len(ids) < 2:
        raise UsageError(f'{file} has one image: it takes two to train on one and validate on the other')
    held_out = set(chance.sample(ids, max(round(VAL_SHARE * len(ids)), 1)))
    parts = []
    for chosen in (set(ids) - held_out, held_out):
        images = [image for image in content['images'] if image['id'] in chosen]
        annotations = [a for a in content['annotations'] if a['image_id'] in chosen]
        parts.append(dict(content, images=images, annotations=annotations))
    return tuple(parts)
