"""COCO files in the commands: what is wrong in one is said in one line with the file's name.

mmdet reads such files without a look: a category that the file lacks, or has in another place, shifts the labels of all
that follow, and an annotation without a mask ends training with ``KeyError: 'mask'``.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

from .errors import UsageError, one_line

_LISTS = ('images', 'annotations', 'categories')


def _checked(base: type) -> type:
    """pycocotools' reader, as mmdet has it, that refuses what cannot be meant."""

    class CheckedCOCO(base):
        def __init__(self, annotation_file: str | None = None) -> None:
            self.file = annotation_file
            try:
                super().__init__(annotation_file)
            except (ValueError, AssertionError, KeyError, TypeError) as error:
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


def _checked_image(parse: Any, dataset: Any, raw: dict) -> dict:
    """Parse the annotations of one image, and refuse those that lack what the config loads."""
    where = f'{dataset.ann_file}: image {raw["raw_img_info"].get("file_name", raw["raw_img_info"].get("id"))}'
    try:
        info = parse(dataset, raw)
    except (KeyError, TypeError, ValueError) as error:
        what = f'has no {error.args[0]!r}' if isinstance(error, KeyError) else f'is not valid ({one_line(error)})'
        raise UsageError(f'{where}: an entry {what}') from error
    loads_masks = any(getattr(step, 'with_mask', False) for step in dataset.pipeline.transforms)
    if loads_masks and any('mask' not in instance for instance in info['instances']):
        raise UsageError(
            f'{where}: an annotation has no segmentation and the config loads masks; take a config without masks, or '
            'leave the annotation out'
        )
    return info


def _checked_list(select: Any, dataset: Any) -> list[dict]:
    """The images that are used, which must be some."""
    images = select(dataset)
    if not images:
        raise UsageError(
            f'{dataset.ann_file}: no image can be used; each is empty, smaller than filter_cfg allows, or has no '
            'annotation with an area inside it'
        )
    return images


@contextlib.contextmanager
def clear_coco_errors(cfg: Config) -> Iterator[None]:
    """While it is open, a fault in a COCO file raises :class:`UsageError` with the file's name.

    Args:
        cfg: the config that is run; nothing is done where it is not of mmdet.
    """
    if cfg.get('default_scope') != 'mmdet':
        yield
        return
    from mmdet.datasets import CocoDataset

    reader, parse, select = CocoDataset.COCOAPI, CocoDataset.parse_data_info, CocoDataset.filter_data
    CocoDataset.COCOAPI = _checked(reader)
    CocoDataset.parse_data_info = lambda dataset, raw: _checked_image(parse, dataset, raw)
    CocoDataset.filter_data = lambda dataset: _checked_list(select, dataset)
    try:
        yield
    finally:
        CocoDataset.COCOAPI, CocoDataset.parse_data_info, CocoDataset.filter_data = reader, parse, select
