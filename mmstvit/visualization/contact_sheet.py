"""Contact sheets of batches: images and clips as the network gets them, with labels, boxes, masks and label maps."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from .clips import evenly
from .panels import GAP, Panel, grid_of_panels, scaled
from .pictures import palette, write_text

_LEAST = 160  # pixels of the shorter edge of a panel
_BOXES = 320  # the same where boxes are drawn
_WIDTH = 1300  # of a sheet, about
_FRAMES = 6  # of a clip
_LETTERS = 7  # pixels of a letter in titles


def contact_sheet(
    inputs: dict,
    preprocessor: Any,
    names: Sequence[str],
    number: int = 16,
    title: str = '',
    objects: Mapping[int, tuple[np.ndarray, Sequence[int]]] | None = None,
) -> np.ndarray:
    """Draw the first samples of a batch with their labels.

    Args:
        inputs: ``inputs`` (N, 3, H, W), or of clips (N, views, 3, T, H, W) or (N, frames, 3, H, W), normalised, and
            ``data_samples``, as a data preprocessor of mmpretrain, mmdet, mmseg or mmaction2 returns them.
        preprocessor: that one, whose normalisation is undone.
        names: of the classes.
        number: of samples at most.
        title: of the whole.
        objects: boxes (n, 4) in pixels of the inputs and their labels, by sample, where the samples have none.

    Returns:
        The sheet, uint8 RGB.
    """
    pixels = _pixels(inputs['inputs'][:number], preprocessor)
    samples = inputs['data_samples'][: len(pixels)]
    if pixels[0].ndim == 4:
        return _clips(pixels, samples, names, title)
    panels: list[tuple[np.ndarray, str]] = []
    for i, (image, sample) in enumerate(zip(pixels, samples, strict=True)):
        boxes, labels, masks = _objects(sample, (objects or {}).get(i))
        if hasattr(sample, 'gt_sem_seg'):
            panels.append((_with_areas(image, sample.gt_sem_seg.data[0].cpu().numpy(), len(names)), ''))
        elif boxes is None:
            panels.append((scaled(image, _LEAST), _label(sample, names)))
        else:
            height, width = getattr(sample, 'img_shape', image.shape[:2])[:2]
            panels.append((_with_objects(image[:height, :width], boxes, labels, masks, names), f'{len(boxes)} objects'))
    return grid_of_panels(_rows(panels), title)


def _rows(panels: list[tuple[np.ndarray, str]]) -> list[list[Panel]]:
    wide = max(max(panel.shape[1], _LETTERS * len(text)) for panel, text in panels) + GAP
    columns = min(max(_WIDTH // wide, 1), len(panels))
    filled: list[Panel] = [(_widened(panel, _LETTERS * len(text)), text) for panel, text in panels]
    filled += [(None, '')] * (-len(panels) % columns)
    return [filled[i : i + columns] for i in range(0, len(filled), columns)]


def _widened(panel: np.ndarray, width: int) -> np.ndarray:
    """Put white beside a panel that is narrower than its title."""
    room = max(width - panel.shape[1], 0)
    return np.pad(panel, ((0, 0), (room // 2, room - room // 2), (0, 0)), constant_values=255)


# ----------------------------------------------------------------------------------------------------------- pixels
def _pixels(inputs: Tensor | Sequence[Tensor], preprocessor: Any) -> list[np.ndarray]:
    """Undo the normalisation: (H, W, 3) of images, (T, H, W, 3) of clips, uint8 RGB."""
    arrays = []
    for one in inputs:
        # The channels of a clip (views, 3, T, H, W) go where those of frames (frames, 3, H, W) are.
        one = one[0].transpose(0, 1) if one.dim() == 5 else one
        mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
        if isinstance(mean, Tensor) and isinstance(std, Tensor):
            one = one.float() * std.flatten()[:, None, None] + mean.flatten()[:, None, None]
        if one.amin() < -1 or one.amax() <= 4:  # normalised by the pipeline
            one = (one - one.amin()) / (one.amax() - one.amin()).clamp(min=1e-6) * 255
        if _is_bgr(preprocessor):
            one = one.flip(-3)
        arrays.append(one.movedim(-3, -1).round().clamp(0, 255).to(torch.uint8).cpu().numpy())
    return [array.repeat(3, -1) if array.shape[-1] == 1 else array for array in arrays]


def _is_bgr(preprocessor: Any) -> bool:
    """Whether images stay as mmcv reads them; clips are decoded to RGB."""
    converts = [getattr(preprocessor, name, None) for name in ('to_rgb', 'channel_conversion', '_channel_conversion')]
    return type(preprocessor).__name__ != 'ActionDataPreprocessor' and not any(converts)


# ----------------------------------------------------------------------------------------------------------- labels
def _label(sample: Any, names: Sequence[str]) -> str:
    """The classes of a sample, and of a mixed one their shares."""
    score = getattr(sample, 'gt_score', None)
    if score is not None and (score > 0).sum() > 1:
        best = score.topk(min(2, int((score > 0).sum())))
        return ' + '.join(f'{float(v):.0%} {_name(int(i), names)}' for v, i in zip(best.values, best.indices))
    label = getattr(sample, 'gt_label', None)
    return '' if label is None else ', '.join(_name(int(i), names) for i in label.flatten())


def _name(label: int, names: Sequence[str]) -> str:
    name = names[label] if 0 <= label < len(names) else str(label)
    return name if len(name) <= 24 else f'{name[:23]}…'


def _objects(sample: Any, default: tuple | None) -> tuple:
    """Boxes (n, 4) of two corners, labels and masks of a sample, or ``None`` for each."""
    instances = getattr(sample, 'gt_instances', None)
    if instances is None or not hasattr(instances, 'bboxes') or (default is not None and not len(instances)):
        return (*default, None) if default is not None else (None, None, None)
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
    return np.asarray(boxes.cpu()), instances.labels.tolist(), getattr(instances, 'masks', None)


def _with_objects(
    image: np.ndarray, boxes: np.ndarray, labels: Sequence[int], masks: Any, names: Sequence[str]
) -> np.ndarray:
    picture = np.ascontiguousarray(scaled(image, _BOXES))
    times = np.array(picture.shape[1::-1] * 2) / np.array(image.shape[1::-1] * 2)
    colours = palette((1, max([*labels, 0]) + 1))
    shapes = masks.to_ndarray() if masks is not None and len(masks) == len(labels) else ()
    for label, shape in zip(labels, shapes):
        _shade(picture, shape[: image.shape[0], : image.shape[1]], colours[label])
    for i, label in enumerate(labels):
        colour = tuple(int(c) for c in colours[label])
        left, top, right, bottom = (boxes[i] * times).round().astype(int).tolist()
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 1)
    for i, label in enumerate(labels):  # above all boxes
        left, top = (boxes[i, :2] * times[:2]).round().astype(int).tolist()
        write_text(picture, _name(label, names), (max(left + 3, 0), max(top + 13, 13)))
    return picture


def _with_areas(image: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    """Lay the colours of the classes over a label map (H, W); what is no class stays as it is."""
    picture = np.ascontiguousarray(scaled(image, _BOXES))
    for label, colour in enumerate(palette((1, number))):
        _shade(picture, labels == label, colour)
    return picture


def _shade(picture: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    """Lay a colour over a mask."""
    mask = cv2.resize(mask.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    picture[mask] = (0.6 * picture[mask] + 0.4 * colour).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------ clips
def _clips(clips: list[np.ndarray], samples: Sequence[Any], names: Sequence[str], title: str) -> np.ndarray:
    rows: list[list[Panel]] = []
    labels = []
    for clip, sample in zip(clips, samples, strict=True):
        chosen = evenly(len(clip), _FRAMES)
        rows.append([(scaled(clip[t], _LEAST), '' if rows else f'frame {t + 1}') for t in chosen])
        labels.append(textwrap.fill(_label(sample, names), 16))
    return grid_of_panels(rows, title, names=labels)
