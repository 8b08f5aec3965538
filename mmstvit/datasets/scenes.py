"""Synthetic scenes of handwritten digits: a small data set for detection, instance and semantic segmentation."""

import colorsys
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from .digits import SPLITS, digit_scans
from .drawing import draw_background, draw_ink, rotation
from .made_set import MadeSet

SIZES = (64, 1024)  # below, strokes are two pixels wide; above, there is nothing more to see in scans of 8 x 8
CLASSES = tuple('0123456789')
MAP_CLASSES = ('ground', *CLASSES)  # of the pixels of label maps, by number
VISIBLE = 0.7  # the least share of a digit's strokes that later digits leave visible

_DIGITS = (2, 6)  # of a scene, at the least and at the most
_HEIGHTS = (0.22, 0.42)  # of the image's height
_OVERLAPPING = 0.2
_TRIES = 40

_scans = functools.lru_cache(maxsize=len(SPLITS))(digit_scans)


class Scene(NamedTuple):
    """An image with its instances.

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
    image = draw_background(rng, size)
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


def label_map(scene: Scene) -> np.ndarray:
    """Return the number of the class in ``MAP_CLASSES`` of each pixel: (H, W), uint8."""
    labels = np.zeros(scene.masks.shape[1:], dtype=np.uint8)
    for label, mask in zip(scene.labels, scene.masks):
        labels[mask] = MAP_CLASSES.index(CLASSES[label])
    return labels


def _draw_ink(rng: np.random.Generator, scan: np.ndarray, height: float) -> np.ndarray:
    """The opacity (h, w) of a scan that is enlarged to ``height`` pixels, slightly turned and slanted, from 0 to 1."""
    turn, slant = rotation(rng.uniform(-6, 6)), rng.uniform(-0.1, 0.1)
    side = int(1.6 * height)
    ink = draw_ink(scan, height / len(scan) * turn @ [[1, slant], [0, 1]], np.full(2, (side - 1) / 2), side)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(rng: np.random.Generator, ink: np.ndarray, strokes: np.ndarray) -> np.ndarray | None:
    """Sample the position of a digit, mostly apart from the others.

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
    """Return the parts of masks (N, H, W) that no later digit occludes."""
    masks = strokes.copy()
    for i in range(len(masks)):
        masks[i] &= ~strokes[i + 1 :].any(axis=0)
    return masks


class _Scenes(MadeSet):
    kind, suffix, recipe, sizes = 'scenes', '.png', 1, SIZES

    def lists(self, split: str) -> Sequence[Path]:
        return [self.out_dir / 'annotations' / f'instances_{split}.json']

    def paths(self, split: str, index: int) -> Sequence[Path]:
        path = self.path(split, index)
        return [path, self.out_dir / 'maps' / split / path.name]

    def encode(self, split: str, index: int) -> tuple[list[bytes], list[dict]]:
        scene = draw_scene(split, index, self.size, self.seed)
        pictures = (scene.image, label_map(scene))
        return [cv2.imencode('.png', picture)[1].tobytes() for picture in pictures], list(_annotate(scene))

    def encode_lists(self, split: str, known: Sequence[list[dict]]) -> Sequence[bytes]:
        entries = [dict(image_id=index, **a) for index, annotations in enumerate(known) for a in annotations]
        coco = dict(
            info=dict(description="Scenes of scikit-learn's handwritten digits", settings=self.settings(split)),
            images=[
                dict(id=i, file_name=self.path(split, i).name, width=self.size, height=self.size)
                for i in range(len(known))
            ],
            annotations=[dict(id=i + 1, **entry) for i, entry in enumerate(entries)],
            categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
        )
        return [json.dumps(coco).encode()]


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

    The images are ``train/000000.png`` and so on, the annotations ``annotations/instances_train.json``, the label maps
    for semantic segmentation (:func:`label_map`) ``maps/train/000000.png``, the same for ``val``. An annotation file is
    written when all its images are there.

    See :class:`.MadeSet` for the arguments that the set is drawn by, and :meth:`.MadeSet.make` for the others, what is
    returned, and errors.
    """
    return _Scenes(out_dir, train, val, size, seed).make(overwrite, progress)


def _annotate(scene: Scene) -> Iterator[dict]:
    """Return the COCO annotations of a scene: visible masks and their tight boxes."""
    for label, mask in zip(scene.labels, scene.masks):
        rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
        yield dict(
            category_id=label + 1,
            bbox=mask_utils.toBbox(rle).tolist(),
            area=int(mask_utils.area(rle)),
            iscrowd=0,
            segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
        )
