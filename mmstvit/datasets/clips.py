"""Synthetic clips of moving handwritten digits: a small action recognition data set of mp4 files.

A digit moves in one of eight ways, and the way is the class. One frame does not tell it: position, angle and size of
the digit, over the frames of all clips, have the same distribution in each class.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..io.files import unfinished
from ..io.streams import video_writer
from .digits import SPLITS, digit_scans
from .drawing import draw_background, draw_ink, rotation
from .made_set import MadeSet

# Below, strokes are two pixels wide.
SIZES = (64, 512)
FRAMES = 8
FPS = 8
# Class -> what moves, and the way: 1 onwards, -1 back, 0 there and back again.
MOTIONS = {
    'left': ('x', -1),
    'right': ('x', 1),
    'anticlockwise': ('angle', -1),
    'clockwise': ('angle', 1),
    'shrinking': ('height', -1),
    'growing': ('height', 1),
    'swinging': ('angle', 0),
    'pulsing': ('height', 0),
}
CLASSES = tuple(MOTIONS)

# How far a digit goes in a clip: a share of the frame, degrees, the logarithm of a ratio. At the least and the most.
_PATHS = {'x': (0.3, 0.5), 'angle': (120, 240), 'height': (0.7, 1.2)}
_HEIGHTS = (0.25, 0.5)  # of the frame's height, on the middle of the way
_CENTRES = (0.4, 0.6)  # of the frame, on the middle of the way

_scans = functools.lru_cache(maxsize=len(SPLITS))(digit_scans)


def label_of(index: int) -> int:
    """Return the class of a clip; classes take turns."""
    return index % len(CLASSES)


def draw_clip(split: str, index: int, size: int = 64, seed: int = 0) -> np.ndarray:
    """Draw one clip; it depends on the arguments alone.

    Args:
        split: ``'train'`` or ``'val'``; they share no scan, and no size and speed either.
        index: number of the clip in its split; :func:`label_of` has its class.
        size: height and width of the frames, in pixels.
        seed: of the data set.

    Returns:
        Frames (8, size, size, 3), uint8, BGR.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    scans, _ = _scans(split)
    scan = scans[rng.integers(len(scans))]
    poses = draw_poses(rng, split, CLASSES[label_of(index)])
    ground, color = draw_background(rng, size), rng.uniform(150, 255, 3)
    frames = np.empty((FRAMES, size, size, 3))
    for t in range(FRAMES):
        turn, height = rotation(poses['angle'][t]), poses['height'][t] * size
        centre = np.array([poses['x'][t], poses['y'][t]]) * size - 0.5
        ink = draw_ink(scan, height / len(scan) * turn, centre, size)
        frames[t] = ground + ink[..., None] * (color - ground)
    return np.clip(frames + rng.normal(0, 4, frames.shape), 0, 255).round().astype(np.uint8)


def draw_poses(rng: np.random.Generator, split: str, motion: str) -> dict[str, np.ndarray]:
    """Draw the pose of a digit in each frame: centre ``x``, ``y``, ``height`` and ``angle``.

    The first three are shares of the frame, the angle is in degrees. All of it is drawn for all classes alike, paths
    included: the class says which path is walked, and on the others the digit stays at a point where it would be in
    some frame.
    """
    moving, way = MOTIONS[motion]
    onwards = np.linspace(-0.5, 0.5, FRAMES)
    again = 2 * np.abs(onwards) - 0.5
    courses = {}
    for name, path in _PATHS.items():
        stay = np.full(FRAMES, rng.choice(onwards))
        course = stay if name != moving else (way or rng.choice([-1, 1])) * (onwards if way else again)
        courses[name] = _apart(rng, split, *path) * course
    return dict(
        x=rng.uniform(*_CENTRES) + courses['x'],
        y=rng.uniform(*_CENTRES) + np.zeros(FRAMES),
        angle=rng.uniform(0, 360) + courses['angle'],
        height=_apart(rng, split, *_HEIGHTS) * np.exp(courses['height']),
    )


def _apart(rng: np.random.Generator, split: str, low: float, high: float) -> float:
    """A number between two: the held-out clips have those of the middle third, the others those of the outer ones."""
    share = rng.uniform(1 / 3, 2 / 3)
    if split == 'train':
        share += rng.choice([-1 / 3, 1 / 3])
    return low + share * (high - low)


class _Clips(MadeSet):
    kind, suffix, recipe, sizes = 'clips', '.mp4', 1, SIZES

    def lists(self, split: str) -> Sequence[Path]:
        return [self.out_dir / f'{split}.txt', self.out_dir / f'{split}.json']

    def encode(self, split: str, index: int) -> tuple[list[bytes], int]:
        frames = draw_clip(split, index, self.size, self.seed)
        with unfinished(self.path(split, index)) as temporary:
            write_video(temporary, frames, FPS)
            return [temporary.read_bytes()], label_of(index)

    def encode_lists(self, split: str, known: Sequence[int]) -> Sequence[bytes]:
        lines = [f'{self.path(split, index).relative_to(self.out_dir)} {label}\n' for index, label in enumerate(known)]
        record = dict(classes=CLASSES, settings=self.settings(split))
        return [''.join(lines).encode(), json.dumps(record, indent=1).encode()]


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames (T, H, W, 3), uint8, BGR, as MPEG-4.

    Raises:
        OSError: OpenCV cannot write there, or has no such encoder.
    """
    with video_writer(Path(path), fps) as write:
        for frame in frames:
            write(frame)


def make_clips(
    out_dir: str | Path,
    train: int = 1600,
    val: int = 400,
    size: int = 64,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> int:
    """Write a data set of clips as mmaction2's ``VideoDataset`` reads it; what an interrupted call wrote is kept.

    The clips are ``train/000000.mp4`` and so on, and ``train.txt`` has their classes, the same for ``val``. A list is
    written when all its clips are there, beside it ``train.json`` with the names of the classes and the settings.

    See :class:`.MadeSet` for the arguments that the set is drawn by, and :meth:`.MadeSet.make` for the others, what is
    returned, and errors.
    """
    return _Clips(out_dir, train, val, size, seed).make(overwrite, progress)
