"""Build the data sets of a run: a fault in an annotation file or a picture is reported in one line that names the file.

Annotation files of all three toolboxes are read without running what is in them.
"""

import contextlib
import inspect
import traceback
from collections.abc import Iterator
from typing import Any

from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS

from ..compat.toolbox_pickles import DataError, plain_data
from ..errors import UsageError, one_line, settings_of
from ..io.image_check import ImageError
from ..io.image_transforms import guard_images
from ..io.roots import roots_of
from ..io.videos import VideoError
from .coco import checked_coco


def build_dataset(dataset: dict, trust_data: bool = False, num_classes: int | None = None) -> Any:
    """Build and read a data set, whose pipeline then checks image files before it decodes them.

    Args:
        dataset: its config.
        trust_data: whether names and links may lead out of its folder, and code in its files may run.
        num_classes: of the model, to check the labels.

    Raises:
        UsageError: it cannot be read, or is empty.
    """
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(dataset.get('_scope_')) as registry:
            kind = registry.get(kind)
    if not (inspect.isclass(kind) and issubclass(kind, BaseDataset)):
        return DATASETS.build(dataset)
    with plain_data(trust_data):
        if 'lazy_init' in settings_of(kind):
            built = DATASETS.build(dict(dataset, lazy_init=True))
        else:  # it reads at once
            with _clear_reading(dataset.get('ann_file') or dataset.get('data_root') or kind.__name__):
                built = DATASETS.build(dataset)
        place = built.ann_file or built.data_root or kind.__name__
        with _clear_reading(place), checked_coco(built):
            built.full_init()
    if len(built) == 0:
        raise UsageError(f'{place}: the data set is empty')
    # The checks are kept in the data set, so that workers have them however they are started.
    roots = [] if trust_data else roots_of(built)
    built.pipeline = Compose(guard_images(built.pipeline.transforms, roots, num_classes))
    return built


def with_checks(dataset: Any, **settings: Any) -> Any:
    """The config of a data set, changed so that the innermost ones are built by :func:`build_dataset`.

    Args:
        dataset: the config, perhaps of a RepeatDataset, ConcatDataset or the like.
        **settings: of :func:`build_dataset`.
    """
    if not isinstance(dataset, dict) or dataset.get('type') == 'mmstvit.CheckedVideos':
        return dataset
    if isinstance(dataset.get('dataset'), dict):
        return dict(dataset, dataset=with_checks(dataset['dataset'], **settings))
    if isinstance(dataset.get('datasets'), (list, tuple)):
        return dict(dataset, datasets=[with_checks(part, **settings) for part in dataset['datasets']])
    return dict(type=build_dataset, dataset=dataset, **settings)


@contextlib.contextmanager
def clear_data_errors(trust_data: bool = False) -> Iterator[None]:
    """While it is open, a file of a data set that cannot be read raises :class:`UsageError` with the file's name."""
    try:
        with plain_data(trust_data):
            yield
    except (ImageError, DataError, VideoError) as error:
        raise UsageError(one_line(error)) from error


@contextlib.contextmanager
def _clear_reading(place: str) -> Iterator[None]:
    try:
        yield
    except (UsageError, ImportError):
        raise
    except (VideoError, DataError) as error:
        raise UsageError(one_line(error)) from error
    except Exception as error:  # what a broken list leads a toolbox to
        # What is raised before it reads is a fault of the config.
        if all(frame.f_code.co_name != 'full_init' for frame, _ in traceback.walk_tb(error.__traceback__)):
            raise
        raise UsageError(f'{place}: the data set cannot be read: {one_line(error)}') from error
