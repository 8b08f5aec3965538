"""Report what is wrong in a COCO file in one line with the file's name, in mmdet's data sets.

mmdet reads such files without a look: a category that the file lacks, or has in another place, shifts the labels of all
that follow, and an annotation without a mask ends training with ``KeyError: 'mask'``.
"""

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import UsageError, one_line
from .coco_file import name_of, read_coco


def fill(coco: Any, file: str, content: dict) -> None:
    """Give mmdet's ``COCO``, which was built without a file, the content of one."""
    coco.file, coco.dataset = file, content
    with contextlib.redirect_stdout(io.StringIO()):  # it tells the terminal that it does
        coco.createIndex()
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs


def _reader(base: type) -> type:
    """Derive from mmdet's ``COCO`` a reader that mends or refuses what cannot be meant."""

    class CheckedCOCO(base):
        def __init__(self, annotation_file: str, test_mode: bool = False) -> None:
            super().__init__()
            fill(self, annotation_file, read_coco(annotation_file))
            if not (test_mode or 'annotations' in self.dataset):
                raise UsageError(f'{annotation_file} is no annotation file in the format of COCO: no list annotations')

        def get_cat_ids(
            self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (), cat_ids: Sequence[int] = ()
        ) -> list[int]:
            ids = super().get_cat_ids(cat_names, sup_names, cat_ids)
            names = [self.cats[i]['name'] for i in ids]
            absent = [name for name in cat_names if name not in names]
            if absent:
                raise UsageError(
                    f'{self.file} has no category {", ".join(absent[:3])}: name its categories in its order, with '
                    'metainfo=dict(classes=...) in the data sets of the config'
                )
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise UsageError(f'{self.file} has several categories {twice[0]}: let each have a name of its own')
            if cat_names and names != list(cat_names):
                raise UsageError(
                    f'{self.file} has the categories in another order than the config, which begins with '
                    f'{cat_names[0]} and not with {names[0]}: labels would be exchanged'
                )
            return ids

    return CheckedCOCO


def _checked_image(parse: Callable, dataset: Any, raw: dict) -> dict:
    """Parse the annotations of one image, and refuse those that lack what the config loads."""
    where = f'{dataset.ann_file}: image {raw["raw_img_info"].get("file_name", raw["raw_img_info"].get("id"))}'
    try:
        info = parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f'has no {error.args[0]!r}' if isinstance(error, KeyError) else f'is not valid ({one_line(error)})'
        raise UsageError(f'{where}: an entry {what}') from error
    loads_masks = any(getattr(step, 'with_mask', False) for step in dataset.pipeline.transforms)
    if loads_masks and any('mask' not in instance for instance in info['instances']):
        first = next(annotation for annotation in raw['raw_ann_info'] if not annotation.get('segmentation'))
        raise UsageError(
            f'{where}: an annotation has no segmentation of three points or more ({name_of(first)}) and the config '
            'loads masks; take a config without masks, or leave the annotation out'
        )
    return info


def coco_methods(dataset: Any) -> dict[str, Callable]:
    """Methods with which mmdet's ``CocoDataset`` raises :class:`UsageError`, with the file's name, for faults of it.

    Args:
        dataset: that is to be read; there are none for other kinds, nor for what a derived class has of its own.
    """
    base = getattr(sys.modules.get('mmdet.datasets.coco'), 'CocoDataset', ())
    if not isinstance(dataset, base):
        return {}
    methods = dict(
        COCOAPI=partial(_reader(dataset.COCOAPI), test_mode=dataset.test_mode),
        parse_data_info=partial(_checked_image, dataset.parse_data_info, dataset),
    )
    return {name: method for name, method in methods.items() if getattr(type(dataset), name) is getattr(base, name)}
