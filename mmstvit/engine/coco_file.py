"""Read COCO files: mend what has one meaning only, refuse the rest in one line with file and entry.

pycocotools takes a file as it is: an annotation of the id 0 counts as missed, one without ``iscrowd`` ends in a
``KeyError``, and a polygon of two points is read as a box.
"""

import functools
import json
import os
from typing import Any

import numpy as np

from ..errors import UsageError, one_line
from ..io.image_check import max_pixels
from .terminal import warn

_HUGE = 1e9  # NaN is not below it either
_CROWD = {0: 0, 1: 1, '0': 0, '1': 1, None: 0}  # True and False are 1 and 0
_MANY = 8  # boxes, of which a coincidence is not to be expected


def read_coco(file: str) -> dict:
    """Read, check and mend a COCO file; the last one is kept for its evaluator until :func:`forget_coco`.

    Raises:
        OSError: it cannot be opened.
        UsageError: with file and entry, where it cannot be meant as it is.
    """
    status = os.stat(file)
    return _read(str(file), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1)
def _read(file: str, *version: int) -> dict:
    try:
        with open(file, encoding='utf-8-sig') as stream:
            content = json.load(stream)
        _mend(file, content)
    except UsageError as error:
        raise UsageError(f'{file}: {error}') from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UsageError(f'{file} is no annotation file in the format of COCO: {one_line(error)}') from error
    return content


forget_coco = _read.cache_clear


def name_of(annotation: dict) -> str:
    """Name an annotation as its file does."""
    return f'annotation {annotation.get("id_in_file", annotation.get("id"))}'


def _entries(content: Any, key: str) -> list[dict]:
    if not isinstance(content, dict):
        raise ValueError(f'it holds a {type(content).__name__}')
    if not isinstance(content.get(key), list):
        raise ValueError(f'no list {key}')
    for i, entry in enumerate(content[key]):
        if not isinstance(entry, dict):
            raise ValueError(f'entry {i} of {key} is {str(entry)[:40]}')
    return content[key]


def _mend(file: str, content: dict) -> None:
    images, categories = (_by_id(_entries(content, key), key) for key in ('images', 'categories'))
    for image in images.values():
        fault = _fault_of_image(image)
        if fault:
            raise UsageError(f'image {image.get("file_name", image["id"])}: {fault}')
    annotations: list[dict] = []
    no_image: list[Any] = []
    no_category: list[Any] = []
    # Files of images that are not annotated have no annotations.
    for annotation in _entries(content, 'annotations') if 'annotations' in content else ():
        image, category = _referred(annotation, images, categories)
        if image is None or category is None:
            (no_image if image is None else no_category).append(annotation)
            continue
        # 1 and '1' are not the same to pycocotools.
        annotation.update(image_id=image['id'], category_id=category['id'])
        fault = _mend_annotation(annotation, image)
        if fault:
            raise UsageError(f'image {image.get("file_name", image["id"])}: {name_of(annotation)} {fault}')
        annotations.append(annotation)
    _report(file, no_image, 'image')
    _report(file, no_category, 'category')
    if no_category:
        _check_shift({str(a['category_id']) for a in (*annotations, *no_category)}, categories)
    if 'annotations' in content:
        content['annotations'] = annotations
    _renumber(annotations)
    _check_unit([(a['bbox'], images[str(a['image_id'])]) for a in annotations if 'bbox' in a])


def _report(file: str, annotations: list[dict], what: str) -> None:
    if annotations:
        first = annotations[0]
        warn(
            f'{file}: {len(annotations)} annotations are left out, whose {what}_id is not in the file; the first is '
            f'{name_of(first)}, with {first[f"{what}_id"]}'
        )


# ------------------------------------------------------------------------------------------------------------- ids
def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _by_id(entries: list[dict], key: str) -> dict[str, dict]:
    """Images or categories by the texts of their ids, which are numbers, or texts, and unique."""
    by_id = {}
    for entry in entries:
        number = entry['id'] = _whole(entry['id'])
        # numpy compares them as texts or as 64 bits.
        if type(number) is not str and not (type(number) is int and abs(number) < 2**63):
            raise UsageError(f'one of its {key} has the id {str(number)[:40]}, which is no whole number')
        if str(number) in by_id:
            raise UsageError(f'several of its {key} have the id {number}: number them anew, and what refers to them')
        by_id[str(number)] = entry
    if len({type(entry['id']) for entry in entries}) > 1:
        raise UsageError(f'the ids of its {key} are numbers and texts: let all be numbers')
    return by_id


def _referred(annotation: dict, images: dict, categories: dict) -> list[Any]:
    """Image and category of an annotation, where they are in the file."""
    for key in ('image_id', 'category_id'):
        if annotation.get(key) is None:
            raise UsageError(f'{name_of(annotation)} has no {key}')
    return [
        by_id.get(str(_whole(annotation[key]))) for key, by_id in (('image_id', images), ('category_id', categories))
    ]


def _check_shift(used: set[str], categories: dict) -> None:
    """Refuse annotations that count categories from 1 where the file counts them from 0, or the other way round."""
    for shift in (-1, 1):
        if all(number.isdecimal() and str(int(number) + shift) in categories for number in used):
            raise UsageError(
                f'its annotations name categories by ids that are all {-shift:+d} to those of its categories: '
                'labels would be exchanged'
            )


def _renumber(annotations: list[dict]) -> None:
    """Number annotations from 1, where their ids are not unique or not above 0: pycocotools takes 0 for no match."""
    ids = [annotation.get('id') for annotation in annotations]
    if all(type(i) is int and 0 < i < 2**53 for i in ids) and len(set(ids)) == len(ids):
        return
    first: dict[str, list[dict]] = {}
    for annotation in annotations:
        same_id = first.setdefault(str(annotation.get('id')), [])
        if 'id' in annotation and annotation in same_id:
            raise UsageError(f'{name_of(annotation)} is in it twice: leave one out')
        same_id.append(annotation)
    for number, annotation in enumerate(annotations, 1):
        annotation.update(id=number, id_in_file=annotation.get('id', f'no. {number}, which has no id,'))


# --------------------------------------------------------------------------------------------------------- numbers
def _fault_of_image(image: dict) -> str | None:
    # What lacks is told by what needs it.
    size = image.get('height', 1), image.get('width', 1)
    if not isinstance(image.get('file_name', ''), str):
        return f'its file_name is {image["file_name"]}'
    # Masks are drawn at that size.
    if not _numbers(size, 2) or min(size) <= 0 or size[0] * size[1] > max_pixels():
        return f'its height and width are {size[0]} and {size[1]}'
    return None


def _mend_annotation(annotation: dict, image: dict) -> str | None:
    """Mend crowd, mask and area of an annotation, and say what cannot be mended."""
    crowd = annotation.get('iscrowd')
    if isinstance(crowd, (list, dict)) or crowd not in _CROWD:
        return f'has iscrowd {str(crowd)[:40]}, which is neither 0 nor 1'
    annotation['iscrowd'] = _CROWD[crowd]
    box, area = annotation.get('bbox', [0] * 4), annotation.get('area')
    if not _numbers(box, 4):
        return f'has the bbox {box}, which is not four finite numbers'
    if area is not None and not _numbers([area], 1):
        return f'has the area {area}, which is no finite number'
    mask = annotation.get('segmentation')
    size: Any = (image.get('height'), image.get('width'))
    if mask and None not in size:
        fault = _fault_of_mask(mask, size)
        if fault:
            return f'has a segmentation {fault}'
        if isinstance(mask, list):
            # Boxes and points among polygons, which mmdet leaves out in training.
            annotation['segmentation'] = mask = [part for part in mask if len(part) >= 6]
    if area is None or area <= 0:
        annotation['area'] = (_area(mask, size) if mask and None not in size else 0) or max(box[2], 0) * max(box[3], 0)
    return None


def _area(mask: Any, size: tuple[int, int]) -> float:
    from pycocotools import mask as masks

    if isinstance(mask, list):
        mask = masks.merge(masks.frPyObjects(mask, *size))
    elif isinstance(mask['counts'], list):
        mask = masks.frPyObjects(mask, *size)
    return float(masks.area(mask))


def _fault_of_mask(mask: Any, size: tuple[int, int]) -> str | None:
    """What is wrong with a mask, before pycocotools reads it in C."""
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
    odd = [len(part) for part in mask if len(part) % 2]
    if odd:
        return f'with a polygon of {odd[0]} numbers, which are no pairs of x and y'
    # They are drawn point for point before they are cut to the image.
    far = max(size)
    if any(part and not -far <= min(part) <= max(part) <= 2 * far for part in mask):
        return 'with points far outside the image'
    return None


def _numbers(values: Any, count: int | None = None) -> bool:
    """Whether it is a list of numbers that pixels can have, and of so many."""
    if not isinstance(values, (list, tuple)) or count not in (None, len(values)):
        return False
    # NaN passes min and max by, but no sum.
    return not values or (
        {*map(type, values)} <= {int, float} and min(values) > -_HUGE and max(values) < _HUGE and sum(values) < np.inf
    )


def _check_unit(boxes: list[tuple[list, dict]]) -> None:
    """Refuse boxes that are given by two corners, or in fractions of the image: COCO has x, y, width and height."""
    boxes = [(box, image) for box, image in boxes if {'height', 'width'} <= set(image)]
    if len(boxes) < _MANY:
        return
    values = np.array([box for box, _ in boxes], float)
    size = np.array([(image['width'], image['height']) for _, image in boxes], float)
    start, end = values[:, :2], values[:, 2:]
    if values.max() <= 1 and values.min() >= 0 and size.min() > 4 and (values % 1).any():
        raise UsageError('its boxes are fractions of the image: give x, y, width and height in pixels')
    beyond = (start + end > size + 2).any(1).mean()
    if beyond > 0.1 and (end > start).all() and (start >= -1).all() and (end <= size + 1).all():
        raise UsageError('its boxes are two corners, as which all lie in their images: give x, y, width and height')
