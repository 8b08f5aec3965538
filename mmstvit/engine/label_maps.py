"""Data sets of mmseg: an image without its label map is reported before training, and maps are looked through."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from ..errors import UsageError
from ..io.image_check import ImageError, check_image_file, is_turned
from ..io.image_transforms import Annotating
from ..paths import is_address
from .folders import files_in, shown


def is_map_set(dataset: Any) -> bool:
    """Whether a data set is one of mmseg."""
    return isinstance(dataset, getattr(sys.modules.get('mmseg.datasets.basesegdataset'), 'BaseSegDataset', ()))


def check_maps(dataset: BaseDataset, entries: Sequence[dict]) -> None:
    """Refuse a data set of mmseg without images, or with images that have no map where others have."""
    if not is_map_set(dataset) or dataset.backend_args:
        return
    folder = dataset.data_prefix.get('img_path')
    if not entries and folder and os.path.isdir(folder):
        endings = Counter(PurePath(name).suffix for name in files_in(folder))
        numbers = ', '.join(f'*{ending} {number}' for ending, number in endings.most_common()) or 'no files'
        raise UsageError(f'{folder}: no file in it ends in {dataset.img_suffix} (img_suffix); it has {numbers}')
    paths = [entry['seg_map_path'] for entry in entries if entry.get('seg_map_path')]
    missing = [path for path in paths if not is_address(path) and not os.path.isfile(path)]
    if missing:
        raise UsageError(
            f'{len(missing):,} of {len(entries):,} images have no label map (seg_map_suffix='
            f'{dataset.seg_map_suffix}): there is no {shown(missing[:1])}'
        )


def look_at_maps(dataset: Any, numbers: Sequence[int]) -> tuple[Counter, list[str]]:
    """Read label maps as training does, without their images unless EXIF may turn these.

    Args:
        dataset: of mmseg, built by :func:`.build_dataset`.
        numbers: of the samples.

    Returns:
        In how many maps each class occurs, and a line for each map that cannot be used.
    """
    steps = dataset.pipeline.transforms
    annotating = next((step for step in steps if isinstance(step, Annotating)), None)
    labels: Counter[int] = Counter()
    faults: list[str] = []
    if annotating is None:
        return labels, faults
    for number in numbers:
        info = dataset.get_data_info(number)
        try:
            width, height = check_image_file(info['img_path'])
            loaded: Any = dict(info, ori_shape=(height, width))
            if is_turned(info['img_path']):  # whether it is depends on the back end and the format
                for step in steps[: steps.index(annotating)]:
                    loaded = step(loaded)
            loaded = annotating(loaded)
            values = np.unique(loaded['gt_seg_map'])
        except ImageError as error:
            faults.append(str(error))
            continue
        labels.update(int(label) for label in values if label != annotating.ignore_index)
    return labels, faults
