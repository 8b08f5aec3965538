"""Scenes made from handwritten digits: a small data set in COCO's format for detection and instance segmentation."""

import colorsys
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as mask_utils
from rich.progress import Progress

from .digits import SPLITS, digit_scans

SIZES = (64, 1024)  # below, strokes are two pixels wide; above, there is nothing more to see in scans of 8 x 8
CLASSES = tuple('0123456789')
VISIBLE = 0.7  # the least share of a digit's strokes that later digits leave visible

_RECIPE = 1  # counted up with each change of the pictures, so that sets of different recipes do not mix
_DIGITS = (2, 6)  # of a scene, at the least and at the most
_HEIGHTS = (0.22, 0.42)  # of the image's height
_OVERLAPPING = 0.2
_TRIES = 40

_scans = functools.lru_cache(maxsize=len(SPLITS))(digit_scans)


class Scene(NamedTuple):
    """A picture with its instances.

    Attributes:
        image: (H, W, 3), uint8, BGR.
        labels: the digits, in the order in which they were drawn.
        masks: (N, H, W), bool, the visible strokes of each digit; no pixel belongs to two.
        strokes: (N, H, W), bool, the strokes with what later digits cover.
    """

    image: np.ndarray
    labels: list[int]
    masks: np.ndarray
    strokes: np.ndarray


def draw_scene(split: str, index: int, size: int = 128, seed: int = 0) -> Scene:
    """Draw one scene; it depends on the arguments alone.

    Args:
        split: ``'train'`` or ``'val'``; they share no scan.
        index: number of the scene in its split.
        size: height and width of the image, in pixels.
        seed: of the data set.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    scans, targets = _scans(split)
    image = _background(rng, size)
    hue = rng.random()
    labels, strokes = [], np.zeros((0, size, size), dtype=bool)
    for i in range(rng.integers(_DIGITS[0], _DIGITS[1] + 1)):
        chosen = rng.integers(len(scans))
        ink = _draw_ink(rng, scans[chosen], size * rng.uniform(*_HEIGHTS))
        # Hues of a scene lie apart, so that the strokes of a digit can be told from those that it covers.
        color = colorsys.hsv_to_rgb((hue + i / _DIGITS[1]) % 1, rng.uniform(0.15, 0.6), rng.uniform(0.85, 1))
        placed = _place(rng, ink, strokes)
        if placed is None:
            continue
        image += placed[..., None] * (np.multiply(color, 255) - image)
        labels.append(int(targets[chosen]))
        strokes = np.concatenate([strokes, placed[None] >= 0.5])
    image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).round().astype(np.uint8)
    return Scene(image, labels, _visible(strokes), strokes)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A dark ground (size, size, 3) of some tint with soft clouds, float."""
    base = rng.uniform(20, 75) + rng.uniform(-12, 12, 3)
    clouds = cv2.resize(rng.normal(0, 12, (4, 4, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(base + clouds, 0, 110)


def _draw_ink(rng: np.random.Generator, scan: np.ndarray, height: float) -> np.ndarray:
    """The opacity (h, w) of a scan that is enlarged to ``height`` pixels, slightly turned and slanted, from 0 to 1."""
    angle, slant = np.radians(rng.uniform(-6, 6)), rng.uniform(-0.1, 0.1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = height / len(scan) * turn @ [[1, slant], [0, 1]]
    side = int(1.6 * height)
    shift = (side - 1) / 2 - matrix @ np.full(2, (len(scan) - 1) / 2)
    affine = np.column_stack([matrix, shift])
    values = cv2.warpAffine(scan.astype(np.float32), affine, (side, side), flags=cv2.INTER_CUBIC)
    # An edge about two pixels wide; the border of the mask, an opacity of 1/2, is at 0.4 of the fullest stroke: above
    # that thin strokes break, below it the holes of 8 and 9 close.
    ink = np.clip((values / values.max() - 0.3) / 0.2, 0, 1)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(rng: np.random.Generator, ink: np.ndarray, strokes: np.ndarray) -> np.ndarray | None:
    """Find a place for a digit, mostly one apart from the others.

    Args:
        rng: of the scene.
        ink: opacity of the digit (h, w).
        strokes: of the digits that are there, (N, H, W), bool.

    Returns:
        The opacity in the image, (H, W), or ``None`` where no place was found.
    """
    (height, width), size = ink.shape, strokes.shape[-1]
    taken = np.zeros((size, size), dtype=bool)
    for stroke in strokes:
        taken[np.ix_(stroke.any(axis=1), stroke.any(axis=0))] = True
    overlapping = len(strokes) > 0 and rng.random() < _OVERLAPPING
    for _ in range(_TRIES):
        y, x = rng.integers(size - height + 1), rng.integers(size - width + 1)
        window = np.s_[y : y + height, x : x + width]
        if taken[window].any() != overlapping:
            continue
        placed = np.zeros((size, size), dtype=ink.dtype)
        placed[window] = ink
        after = np.concatenate([strokes, placed[None] >= 0.5])
        if (_visible(after).sum(axis=(1, 2)) >= VISIBLE * after.sum(axis=(1, 2))).all():
            return placed
    return None


def _visible(strokes: np.ndarray) -> np.ndarray:
    """Of the strokes (N, H, W) what is not covered by a later digit."""
    masks = strokes.copy()
    for i in range(len(masks)):
        masks[i] &= ~strokes[i + 1 :].any(axis=0)
    return masks


def make_scenes(
    out_dir: str | Path,
    train: int = 800,
    val: int = 200,
    size: int = 128,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> int:
    """Write a data set of scenes in COCO's layout; what an earlier, interrupted call has written is kept.

    The images are ``train/000000.png`` and so on, the annotations ``annotations/instances_train.json``, the same for
    ``val``. An annotation file is written when all its images are there.

    Args:
        out_dir: the folder of the data set.
        train: number of scenes for training.
        val: number of scenes for validation.
        size: height and width of the images, in pixels.
        seed: of the scenes.
        overwrite: remove a set that is there first: its annotation files and all images with such numbers as names.
        progress: whether to show a progress bar.

    Returns:
        The number of scenes that were drawn, 0 where the set was complete.

    Raises:
        ValueError: a count, the size or the seed is out of range.
        OSError: the folder cannot be written, or holds a set of other settings.
    """
    out_dir = Path(out_dir)
    sets = _settings(dict(zip(SPLITS, (train, val))), size, seed)
    if out_dir.exists() and not out_dir.is_dir():
        raise NotADirectoryError(f'{out_dir} is a file: name a folder')
    if overwrite:
        _clear(out_dir)
    todo = [_todo(out_dir, settings) for settings in sets]
    total = sum(map(len, todo))
    if total == 0:
        return 0
    for split in SPLITS:
        for path in (_image_path(out_dir, split, 0), _annotation_path(out_dir, split)):
            path.parent.mkdir(parents=True, exist_ok=True)
    # In a terminal a moving bar, in a log file one line at the end.
    with Progress(disable=not progress) as bar:
        task = bar.add_task('scenes', total=total)
        for settings, indices in zip(sets, todo):
            _write_split(out_dir, settings, indices, lambda: bar.advance(task))
    return total


def _settings(counts: dict[str, int], size: int, seed: int) -> list[dict]:
    """What each split's annotation file records of how it was made."""
    for split, count in counts.items():
        if count < 1:
            raise ValueError(f'{split} must be at least 1 scene, got {count}')
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f'size must be from {SIZES[0]} to {SIZES[1]} pixels, got {size}')
    if seed < 0:
        raise ValueError(f'seed must not be negative, got {seed}')
    return [dict(split=split, scenes=counts[split], size=size, seed=seed, recipe=_RECIPE) for split in SPLITS]


def _image_path(out_dir: Path, split: str, index: int) -> Path:
    return out_dir / split / f'{index:06d}.png'


def _annotation_path(out_dir: Path, split: str) -> Path:
    return out_dir / 'annotations' / f'instances_{split}.json'


def _clear(out_dir: Path) -> None:
    for split in SPLITS:
        _annotation_path(out_dir, split).unlink(missing_ok=True)
        for image in (out_dir / split).glob('[0-9]' * 6 + '.png'):
            image.unlink()


def _todo(out_dir: Path, settings: dict) -> Sequence[int]:
    """The scenes to draw: all while there are no annotations, then those whose image has gone."""
    path = _annotation_path(out_dir, settings['split'])
    indices = range(settings['scenes'])
    if not path.exists():
        return indices
    try:
        found = json.loads(path.read_text()).get('info', {}).get('settings')
    except (ValueError, AttributeError):  # not JSON, or not of COCO's form
        found = None
    if found != settings:
        others = ', '.join(f'{key}={value}' for key, value in found.items()) if isinstance(found, dict) else 'unknown'
        raise _refusal(path, f'was made with other settings ({others})')
    return [i for i in indices if not _has_content(_image_path(out_dir, settings['split'], i))]


def _refusal(path: Path, what: str) -> FileExistsError:
    return FileExistsError(f'{path} {what}: choose another folder, or replace what is there with --overwrite')


def _has_content(path: Path) -> bool:
    # A crash of the machine can leave an empty file, since images are not synced to the disk one by one.
    return path.is_file() and path.stat().st_size > 0


def _write_split(out_dir: Path, settings: dict, indices: Sequence[int], update: Callable[[], None]) -> None:
    """Write the images of a split, then its annotations if they are missing; ``update`` is called after each image."""
    split, size = settings['split'], settings['size']
    annotation_path = _annotation_path(out_dir, split)
    instances = []
    for index in indices:
        scene, path = draw_scene(split, index, size, settings['seed']), _image_path(out_dir, split, index)
        data = cv2.imencode('.png', scene.image)[1].tobytes()
        if not _has_content(path):
            _write(path, data)
        elif path.read_bytes() != data:
            raise _refusal(path, 'is another picture')
        instances += [dict(id=len(instances) + 1 + i, image_id=index, **a) for i, a in enumerate(_annotate(scene))]
        update()
    if annotation_path.exists():
        return
    coco = dict(
        info=dict(description="Scenes of scikit-learn's handwritten digits", settings=settings),
        images=[dict(id=i, file_name=f'{i:06d}.png', width=size, height=size) for i in indices],
        annotations=instances,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
    )
    _write(annotation_path, json.dumps(coco).encode(), sync=True)


def _annotate(scene: Scene) -> Iterator[dict]:
    """COCO's entries of the instances of a scene: the visible strokes and their tight box."""
    for label, mask in zip(scene.labels, scene.masks):
        rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
        yield dict(
            category_id=label + 1,
            bbox=mask_utils.toBbox(rle).tolist(),
            area=int(mask_utils.area(rle)),
            iscrowd=0,
            segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
        )


def _write(path: Path, data: bytes, sync: bool = False) -> None:
    """Write a file that is either there as a whole or not at all."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with temporary.open('wb') as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
