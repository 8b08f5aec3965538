"""Report what is wrong in a COCO file in one line with the file's name.

mmdet reads such files without a look: a category that the file lacks, or has in another place, shifts the labels of all
that follow, and an annotation without a mask ends training with ``KeyError: 'mask'``.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from ..errors import UsageError, one_line
from ..io.image_check import max_pixels

_HUGE = 1e9  # NaN is not below it either
_LISTS = ('images', 'annotations', 'categories')


def _checked(base: type) -> type:
    """pycocotools' reader, as mmdet has it, that refuses what cannot be meant."""

    class CheckedCOCO(base):
        def __init__(self, annotation_file: str | None = None) -> None:
            self.file = annotation_file
            try:
                super().__init__(annotation_file)
            except (ValueError, AssertionError, KeyError, TypeError, AttributeError, RecursionError) as error:
                line = f'{annotation_file} is no annotation file in the format of COCO: {one_line(error)}'
                raise UsageError(line) from error
            missing = [key for key in _LISTS if not isinstance(self.dataset.get(key), list)]
            if missing:
                raise UsageError(f'{annotation_file} is no annotation file in the format of COCO: no list {missing[0]}')

        def get_cat_ids(
            self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (), cat_ids: Sequence[int] = ()
        ) -> list[int]:
            ids = super().get_cat_ids(cat_names, sup_names, cat_ids)
            found = [self.cats[i]['name'] for i in ids]
            absent = [name for name in cat_names if name not in found]
            if absent:
                raise UsageError(
                    f'{self.file} has no category {", ".join(absent[:3])}: name its categories in its order, with '
                    'metainfo=dict(classes=...) in the data sets of the config'
                )
            if cat_names and found != list(cat_names):
                raise UsageError(
                    f'{self.file} has the categories in another order than the config, which begins with '
                    f'{cat_names[0]} and not with {found[0]}: labels would be exchanged'
                )
            return ids

    return CheckedCOCO


def _fault(image: dict, annotations: list[dict]) -> str | None:
    """What is wrong with the numbers of an image and its annotations: mmdet reads them as they are."""
    # What lacks is told by what needs it.
    size = image.get('height', 1), image.get('width', 1)
    if not isinstance(image.get('file_name', ''), str):
        return f'its file_name is {image["file_name"]}'
    # Masks are drawn at that size.
    if not _numbers(size, 2) or min(size) <= 0 or size[0] * size[1] > max_pixels():
        return f'its height and width are {size[0]} and {size[1]}'
    sized = {'height', 'width'} <= set(image)
    for annotation in annotations:
        name = f'annotation {annotation.get("id")}'
        if not _numbers(annotation.get('bbox', [0] * 4), 4):
            return f'{name} has the bbox {annotation["bbox"]}, which is not four finite numbers'
        if not _numbers([annotation.get('area', 0)], 1):
            return f'{name} has the area {annotation["area"]}, which is no finite number'
        fault = _fault_of_mask(annotation.get('segmentation'), size) if sized else None
        if fault:
            return f'{name} has a segmentation {fault}'
    return None


def _fault_of_mask(mask: Any, size: tuple[int, int]) -> str | None:
    """What is wrong with a mask, before pycocotools reads it in C."""
    if not mask:
        return None
    if isinstance(mask, dict):
        if list(mask.get('size') or ()) != list(size):
            return f'of the size {mask.get("size")}, and the image has {list(size)}'
        counts = mask.get('counts')
        if isinstance(counts, list) and not (
            _numbers(counts) and min(counts, default=-1) >= 0 and sum(counts) == size[0] * size[1]
        ):
            return 'whose counts do not fill the image'
        return None if isinstance(counts, (list, str, bytes)) else 'without counts'
    if not isinstance(mask, list) or not all(map(_numbers, mask)):
        return 'that is no list of polygons of finite numbers'
    # They are drawn point for point before they are cut to the image.
    far = max(size)
    if any(not -far <= value <= 2 * far for part in mask for value in part):
        return 'with points far outside the image'
    return None


def _numbers(values: Any, count: int | None = None) -> bool:
    """Whether it is a list of numbers that pixels can have, and of so many."""
    return (
        isinstance(values, (list, tuple))
        and count in (None, len(values))
        and all(type(value) in (int, float) and abs(value) < _HUGE for value in values)
    )


def _checked_image(parse: Callable, dataset: Any, raw: dict) -> dict:
    """Parse the annotations of one image, and refuse those that lack what the config loads."""
    where = f'{dataset.ann_file}: image {raw["raw_img_info"].get("file_name", raw["raw_img_info"].get("id"))}'
    fault = _fault(raw['raw_img_info'], raw['raw_ann_info'])
    if fault:
        raise UsageError(f'{where}: {fault}')
    try:
        info = parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f'has no {error.args[0]!r}' if isinstance(error, KeyError) else f'is not valid ({one_line(error)})'
        raise UsageError(f'{where}: an entry {what}') from error
    loads_masks = any(getattr(step, 'with_mask', False) for step in dataset.pipeline.transforms)
    if loads_masks and any('mask' not in instance for instance in info['instances']):
        raise UsageError(
            f'{where}: an annotation has no segmentation and the config loads masks; take a config without masks, or '
            'leave the annotation out'
        )
    return info


def _checked_file(load: Callable, dataset: Any) -> list[dict]:
    """Load an annotation file, and refuse what mmdet stumbles over."""
    try:
        return load()
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f'{dataset.ann_file}: the data set cannot be read: {one_line(error)}') from error
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(
            f'{dataset.ann_file} is no annotation file in the format of COCO: {one_line(error)}'
        ) from error


def _checked_list(select: Callable, dataset: Any) -> list[dict]:
    """The images that are used, which must be some."""
    images = select()
    if not images:
        raise UsageError(
            f'{dataset.ann_file}: no image can be used; each is empty, smaller than filter_cfg allows, or has no '
            'annotation with an area inside it'
        )
    return images


@contextlib.contextmanager
def checked_coco(dataset: Any) -> Iterator[None]:
    """While it is open, a fault in the COCO file that a data set reads raises :class:`UsageError` with the file's name.

    Args:
        dataset: nothing is done where it is no ``CocoDataset`` of mmdet, or with what a class derived from it has of
            its own.
    """
    base = getattr(sys.modules.get('mmdet.datasets.coco'), 'CocoDataset', ())
    checks = {}
    if isinstance(dataset, base):
        checks = dict(
            COCOAPI=_checked(dataset.COCOAPI),
            load_data_list=partial(_checked_file, dataset.load_data_list, dataset),
            parse_data_info=partial(_checked_image, dataset.parse_data_info, dataset),
            filter_data=partial(_checked_list, dataset.filter_data, dataset),
        )
    checks = {name: check for name, check in checks.items() if getattr(type(dataset), name) is getattr(base, name)}
    vars(dataset).update(checks)
    try:
        yield
    finally:  # workers need none of it
        for name in checks:
            delattr(dataset, name)
