"""The pipelines of image data sets, made to say in one line with the file's name what is wrong with an image."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from mmengine.fileio import LocalBackend

from ..paths import is_address
from .image_check import NOT_DECODED, ImageError, check_image_file, check_pixels
from .label_maps import check_labels, check_map_file
from .roots import TRUST_DATA, leads_outside


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
            step = _Loading(step, roots, ann_file)
        elif name == 'LoadAnnotations':
            step = Annotating(step, num_classes, ignore_index)
        elif name == 'RawFrameDecode':
            step = _LoadingFrames(step, roots)
        elif 'Resize' in name:
            step = _Resizing(step)
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


class _Loading:
    def __init__(self, step: Callable, roots: Sequence[str], ann_file: str) -> None:
        self.step, self.roots, self.ann_file = step, roots, ann_file

    def __call__(self, results: dict) -> dict | None:
        filename = results['img_path']
        for path in (filename, results.get('seg_map_path')):
            if path:
                _check_place(path, self.roots)
        elsewhere = getattr(self.step, 'backend_args', None) or getattr(self.step, 'file_client_args', None)
        if not elsewhere and not is_address(filename):
            check_image_file(filename)
        annotated = results.get('height'), results.get('width')
        with _fault_of(filename):
            results = self.step(results)
        if results is not None and None not in annotated and annotated != tuple(results['ori_shape'][:2]):
            height, width = results['ori_shape'][:2]
            raise ImageError(
                f'{filename}: it has {width} x {height} pixels, and {annotated[1]} x {annotated[0]} in '
                f'{self.ann_file or "its annotations"}: masks and boxes of another size would be scaled wrongly'
            )
        return results


def _check_place(path: str, roots: Sequence[str]) -> None:
    real = leads_outside(path, roots)
    if real:
        raise ImageError(f"{path}: it leads out of the data set's folder, to {real}; {TRUST_DATA}")


class _LoadingFrames:
    """mmaction2's step that loads the frames of a video from image files."""

    def __init__(self, step: Callable, roots: Sequence[str]) -> None:
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
    """A step that loads annotations; label maps, which mmseg loads, must fit their images and the classes."""

    def __init__(self, step: Callable, num_classes: int | None, ignore_index: int) -> None:
        self.step, self.with_mask = step, getattr(step, 'with_mask', False)
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def __call__(self, results: dict) -> dict | None:
        name, path = results['img_path'], results.get('seg_map_path')
        checked = path is not None and self.num_classes is not None
        if checked and not getattr(self.step, 'backend_args', None) and not is_address(path):
            check_map_file(path)
        with _fault_of(path or name, 'its annotations cannot be read ({error})'):  # masks are unpacked here
            results = self.step(results)
        if checked:
            size = tuple(results['ori_shape'][:2])
            check_labels(path, results['gt_seg_map'], size, self.num_classes, self.ignore_index)
        return results


class _Resizing:
    def __init__(self, step: Callable) -> None:
        self.step = step

    def __call__(self, results: dict) -> dict | None:
        if 'img' not in results:  # frames of a video
            return self.step(results)
        name, (height, width) = results.get('img_path') or 'the image', results['img'].shape[:2]
        if type(self.step).__name__ == 'ResizeEdge':
            check_pixels(name, *_resized(width, height, self.step.edge, self.step.scale), 'it would be resized to')
        try:
            return self.step(results)
        except cv2.error as error:
            raise ImageError(
                f'{name}: {width} x {height} pixels cannot be resized as the config asks ({_reason(error)})'
            ) from error


def _resized(width: int, height: int, edge: str, scale: int) -> tuple[int, int]:
    """Width and height that mmpretrain's ``ResizeEdge`` gives."""
    by_width = {'short': width < height, 'long': width > height, 'width': True, 'height': False}[edge]
    return (scale, scale * height // width) if by_width else (scale * width // height, scale)


def _reason(error: cv2.error) -> str:
    found = re.search(r'error: \([^)]*\) ?(.*)', ' '.join(str(error).split()))
    return found[1][:120] if found else 'OpenCV refuses'
