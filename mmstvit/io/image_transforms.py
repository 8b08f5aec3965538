"""The pipelines of image data sets, made to say in one line with the file's name what is wrong with an image."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from mmengine.fileio import LocalBackend

from ..paths import is_address
from .image_check import NOT_DECODED, ImageError, check_image_file, check_pixels, mode_of
from .roots import TRUST_DATA, leads_outside

_DEEP = ('I', 'I;16', 'I;16B', 'I;16L', 'F')  # modes of Pillow with more than 8 bits
_SHOWN = 8  # labels


def guard_images(
    steps: Sequence[Callable],
    roots: Sequence[str] = (),
    num_classes: int | None = None,
    ann_file: str = '',
    ignore_index: int = 255,
) -> list[Callable]:
    """The steps of a built pipeline, of which those that load and resize tell what is wrong with a file.

    They raise :class:`ImageError` where a file is outside ``roots``, cannot be read, is of another size than
    ``ann_file`` says, or would become a picture of no pixels or of too many; where a label map is of another size than
    its image, or has a label that is no class (of ``num_classes``) and not ``ignore_index``. The other steps stay as
    they are.
    """
    guarded = []
    for step in steps:
        name = type(step).__name__
        if name == 'LoadImageFromFile':
            step = functools.partial(_load, step, roots, ann_file)
        elif name == 'LoadAnnotations':
            step = Annotating(step, num_classes, ignore_index)
        elif name == 'RawFrameDecode':
            step = _LoadingFrames(step, roots)
        elif 'Resize' in name:
            step = functools.partial(_resize, step)
        guarded.append(step)
    return guarded


@contextlib.contextmanager
def _fault_of(name: str, what: str = NOT_DECODED) -> Iterator[None]:
    """While it is open, whatever a broken file raises is the file's fault."""
    try:
        yield
    except (ImportError, MemoryError, ImageError):
        raise
    except Exception as error:
        raise ImageError(f'{name}: {what.format(error=" ".join(str(error).split()))}') from error


def _load(step: Callable, roots: Sequence[str], ann_file: str, results: dict) -> dict | None:
    filename = results['img_path']
    for path in (filename, results.get('seg_map_path')):
        if path:
            _check_place(path, roots)
    if not _is_elsewhere(step, filename):
        check_image_file(filename)
    annotated = results.get('height'), results.get('width')
    with _fault_of(filename):
        results = step(results)
    if results is not None and None not in annotated and annotated != tuple(results['ori_shape'][:2]):
        height, width = results['ori_shape'][:2]
        raise ImageError(
            f'{filename}: it has {width} x {height} pixels, and {annotated[1]} x {annotated[0]} in '
            f'{ann_file or "its annotations"}: masks and boxes of another size would be scaled wrongly'
        )
    return results


def _is_elsewhere(step: Callable, path: str) -> bool:
    """Whether a step reads a file from anywhere but the disk."""
    return any(getattr(step, name, None) for name in ('backend_args', 'file_client_args')) or is_address(path)


def _check_place(path: str, roots: Sequence[str]) -> None:
    real = leads_outside(path, roots)
    if real:
        raise ImageError(f"{path}: it leads out of the data set's folder, to {real}; {TRUST_DATA}")


class _LoadingFrames:
    """mmaction2's step that loads the frames of a video from image files."""

    def __init__(self, step: Any, roots: Sequence[str]) -> None:
        self.step, self.files = step, None
        if step.io_backend == 'disk':
            self.files = step.file_client = _CheckedFiles(roots)

    def __call__(self, results: dict) -> dict:
        try:
            results = self.step(results)
            broken = any(frame.dtype != np.uint8 for frame in results['imgs'])  # of flow
        except (ImportError, MemoryError, ImageError):
            raise
        except Exception as error:
            raise ImageError(f'{self.files.last if self.files else results["frame_dir"]}: {NOT_DECODED}') from error
        if broken:
            raise ImageError(f'{results["frame_dir"]}: an image in it cannot be decoded')
        return results


class _CheckedFiles(LocalBackend):
    """Image files, which are looked at before they are read."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots, self.last = roots, ''

    def get(self, filepath: str) -> bytes:
        self.last = filepath
        _check_place(filepath, self.roots)
        check_image_file(filepath)
        return super().get(filepath)


class Annotating:
    """A step that loads annotations; label maps, which mmseg loads, must fit their images and the classes.

    mmseg keeps the lowest 8 bits of what it reads and never compares it with the image or the classes: a wrong map ends
    a training in an index error of the loss, on a GPU in an assertion of its kernel, and changes the score of a test
    unsaid.
    """

    def __init__(self, step: Callable, num_classes: int | None, ignore_index: int) -> None:
        self.step, self.with_mask = step, getattr(step, 'with_mask', False)
        self.num_classes: Any = num_classes  # None: not known
        self.ignore_index = ignore_index

    def __call__(self, results: dict) -> dict | None:
        name: str = results['img_path']
        path: Any = results.get('seg_map_path')
        checked = path is not None and self.num_classes is not None
        if checked and not _is_elsewhere(self.step, path):
            check_image_file(path)
            if mode_of(path) in _DEEP:
                raise ImageError(
                    f'{path}: it has more than 8 bits a pixel, of which mmseg reads 8: save it as a gray PNG with the '
                    'number of a class in each pixel'
                )
        with _fault_of(path or name, 'its annotations cannot be read ({error})'):  # masks are unpacked here
            results = self.step(results)
        if checked:
            fault = self._fault(results['gt_seg_map'], tuple(results['ori_shape'][:2]))
            if fault:
                raise ImageError(f'{path}: {fault}')
        return results

    def _fault(self, labels: np.ndarray, size: tuple[int, int]) -> str | None:
        """What is wrong with a map after ``reduce_zero_label`` and ``label_map``, for an image of this size."""
        if labels.ndim != 2:
            return (
                f'it is painted in colours, {labels.shape[-1]} channels: a map has the number of a class in each '
                'pixel, as a gray PNG or one with a palette'
            )
        if labels.shape != size:
            (height, width), (rows, columns) = size, labels.shape
            return f'it has {columns} x {rows} pixels, and its image has {width} x {height}'
        values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
        wrong = [str(v) for v in values if v >= self.num_classes and v != self.ignore_index]
        if not wrong:
            return None
        return (
            f"it has the label {', '.join(wrong[:_SHOWN])}{' ...' if len(wrong) > _SHOWN else ''}, the model's classes "
            f'end at {self.num_classes - 1} and ignore_index is {self.ignore_index}: mend the map, or set num_classes '
            'or ignore_index of model.decode_head'
        )


def _resize(step: Any, results: dict) -> dict | None:
    if 'img' not in results:  # frames of a video
        return step(results)
    name, (height, width) = results.get('img_path') or 'the image', results['img'].shape[:2]
    if type(step).__name__ == 'ResizeEdge':
        check_pixels(name, *_resized(width, height, step.edge, step.scale), 'it would be resized to')
    try:
        return step(results)
    except cv2.error as error:
        raise ImageError(
            f'{name}: {width} x {height} pixels cannot be resized as the config asks ({_reason(error)})'
        ) from error


def _resized(width: int, height: int, edge: str, scale: int) -> tuple[int, int]:
    """Width and height that mmpretrain's ``ResizeEdge`` gives."""
    by_width = {'short': width < height, 'long': width > height, 'width': True, 'height': False}[edge]
    return (scale, scale * height // width) if by_width else (scale * width // height, scale)


def _reason(error: cv2.error) -> str:
    match = re.search(r'error: \([^)]*\) ?(.*)', ' '.join(str(error).split()))
    return match[1][:120] if match else 'OpenCV refuses'
