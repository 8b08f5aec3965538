"""Build the data sets of a run: a fault in an annotation file or a picture is reported in one line that names the file.

Annotation files of all three toolboxes are read without running what is in them.
"""

import contextlib
import inspect
import os.path
import traceback
from collections.abc import Iterator
from typing import Any

from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS

from ..compat.toolbox_pickles import DataError, plain_data
from ..datasets.checked_videos import CheckedVideos
from ..errors import UsageError, one_line, settings_of
from ..io.image_check import ImageError
from ..io.image_transforms import guard_images
from ..io.roots import roots_of
from ..io.videos import VideoError
from .coco import checked_coco


def build_dataset(
    dataset: dict, trust_data: bool = False, num_classes: int | None = None, skip_broken: bool = False
) -> Any:
    """Build and read a data set, whose pipeline then checks files before it decodes them.

    Args:
        dataset: its config, perhaps of a RepeatDataset, ConcatDataset or the like.
        trust_data: whether names and links may lead out of its folder, and code in its files may run.
        num_classes: of the model, to check the labels.
        skip_broken: whether broken clips of a ``VideoDataset`` are skipped.

    Raises:
        UsageError: it cannot be read, or is empty.
    """
    settings = dict(trust_data=trust_data, num_classes=num_classes, skip_broken=skip_broken)

    def checked(part: Any) -> Any:
        return dict(type=build_dataset, dataset=part, **settings) if isinstance(part, dict) else part

    if 'dataset' in dataset and dataset.get('type') != 'mmstvit.CheckedVideos':
        dataset = dict(dataset, dataset=checked(dataset['dataset']))
    if isinstance(dataset.get('datasets'), (list, tuple)):
        dataset = dict(dataset, datasets=[checked(part) for part in dataset['datasets']])
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(dataset.get('_scope_')) as registry:
            kind = registry.get(kind)
    if not (inspect.isclass(kind) and issubclass(kind, BaseDataset)):
        return DATASETS.build(dataset)
    with plain_data(trust_data):
        if kind.__module__ == 'mmaction.datasets.video_dataset':
            return CheckedVideos(dataset, skip_broken, num_classes, trust_data)
        _check_classes(dataset)
        built = _read(dataset, kind)
    # The checks are kept in the data set, so that workers have them however they are started.
    roots = [] if trust_data else roots_of(built)
    built.pipeline = Compose(guard_images(built.pipeline.transforms, roots, num_classes, built.ann_file))
    return built


def _check_classes(dataset: dict) -> None:
    """Refuse a file of class names with a blank line among them: labels are numbers of lines."""
    for file in (dataset.get('classes'), (dataset.get('metainfo') or {}).get('classes')):
        if isinstance(file, str) and os.path.isfile(file):
            with open(file, encoding='utf-8-sig') as lines:
                names = lines.read().rstrip().split('\n')
            blank = [number for number, name in enumerate(names, 1) if not name.strip()]
            if blank:
                raise UsageError(f'{file}: line {blank[0]} is blank: classes are numbered by line, name one in each')


def _read(dataset: dict, kind: type) -> BaseDataset:
    place = dataset.get('ann_file') or dataset.get('data_root') or kind.__name__
    lazy = dict(lazy_init=True) if 'lazy_init' in settings_of(kind) else {}
    try:
        built = DATASETS.build(dict(dataset, **lazy))
        place = built.ann_file or built.data_root or kind.__name__
        with checked_coco(built):
            built.full_init()
    except (UsageError, VideoError, DataError, ImportError):
        raise
    except Exception as error:  # what a broken list leads a toolbox to
        # What is raised before it reads is a fault of the config.
        if all(frame.f_code.co_name != 'full_init' for frame, _ in traceback.walk_tb(error.__traceback__)):
            raise
        raise UsageError(f'{place}: the data set cannot be read: {one_line(error)}') from error
    if len(built) == 0:
        raise UsageError(f'{place}: the data set is empty')
    return built


def innermost(dataset: Any, key: str) -> Iterator[tuple[str, dict]]:
    """The data sets inside RepeatDataset, ConcatDataset and the like, with their places in the config."""
    if not isinstance(dataset, dict):
        return
    if isinstance(dataset.get('dataset'), dict):
        yield from innermost(dataset['dataset'], f'{key}.dataset')
    elif isinstance(dataset.get('datasets'), (list, tuple)):
        for i, part in enumerate(dataset['datasets']):
            yield from innermost(part, f'{key}.datasets.{i}')
    else:
        yield key, dataset


@contextlib.contextmanager
def clear_data_errors(trust_data: bool = False) -> Iterator[None]:
    """While it is open, a file of a data set that cannot be read raises :class:`UsageError` with the file's name."""
    try:
        with plain_data(trust_data):
            yield
    except (ImageError, DataError, VideoError) as error:
        raise UsageError(one_line(error)) from error
