"""Built-in inputs of the demo page: handwritten digits that were held out, as scans, in scenes and moving."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..datasets import Digits, digit_scans

_THUMB = 96  # pixels of a scan as it is shown
_SCENES = 6
_ENLARGED = 3  # scenes, so that what is drawn into them can be read; the network sees them at their own size
_BEYOND = 1000  # numbers of scenes and clips after those of the data sets that the demos make
_FRAMES = (0, 2, 5, 7)  # of a clip as it is shown


class Sample(NamedTuple):
    """A file, a picture of it (height, width, 3), uint8 RGB, and what is in it."""

    path: Path
    thumb: np.ndarray
    truth: str


def samples_for(scope: str, classes: Sequence[str] | None, folder: Path) -> list[Sample]:
    """Make inputs for a model that knows the digits or how they move; none for any other.

    Args:
        scope: the model's toolbox.
        classes: names of its classes.
        folder: where the files go.
    """
    classes = tuple(classes or ())
    folder.mkdir(parents=True, exist_ok=True)
    if scope == 'mmpretrain':
        known, make = Digits.METAINFO['classes'], _scans
    elif scope == 'mmaction':
        from ..datasets.clips import CLASSES as known

        make = _clips
    else:
        from ..datasets.scenes import CLASSES, MAP_CLASSES

        known, make = MAP_CLASSES if scope == 'mmseg' else CLASSES, _scenes
    return make(folder) if classes == tuple(known) else []


def _scans(folder: Path) -> list[Sample]:
    images, labels = digit_scans('val')
    samples = []
    for digit in range(10):
        scan, path = images[np.flatnonzero(labels == digit)[0]], folder / f'digit_{digit}.png'
        cv2.imwrite(str(path), scan)
        thumb = cv2.resize(scan, (_THUMB, _THUMB), interpolation=cv2.INTER_CUBIC)
        samples.append(Sample(path, np.repeat(thumb[..., None], 3, axis=-1), str(digit)))
    return samples


def _scenes(folder: Path) -> list[Sample]:
    from ..datasets.scenes import CLASSES, draw_scene

    samples = []
    for number in range(_SCENES):
        scene, path = draw_scene('val', _BEYOND + number), folder / f'scene_{number}.png'
        image = cv2.resize(scene.image, None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), image)
        samples.append(Sample(path, image[..., ::-1], ', '.join(sorted(CLASSES[label] for label in scene.labels))))
    return samples


def _clips(folder: Path) -> list[Sample]:
    from ..datasets.clips import CLASSES, FPS, draw_clip, label_of, write_video

    samples = []
    for number in range(_BEYOND, _BEYOND + len(CLASSES)):
        name = CLASSES[label_of(number)]
        frames, path = draw_clip('val', number), folder / f'{name}.mp4'
        write_video(path, frames, FPS)
        samples.append(Sample(path, np.concatenate(frames[list(_FRAMES)], axis=1)[..., ::-1], name))
    return samples
