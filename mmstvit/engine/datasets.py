"""Build the data sets of a run: a fault in an annotation file or a picture is reported in one line that names the file.

Annotation files of all toolboxes are read without running what is in them.
"""

import contextlib
import inspect
import os.path
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS

from ..compat.toolbox_pickles import DataError, plain_data
from ..datasets.checked_videos import CheckedVideos
from ..datasets.counts import counted
from ..errors import UsageError, one_line, settings_of
from ..io.image_check import ImageError
from ..io.image_transforms import guard_images
from ..io.roots import roots_of
from ..io.videos import VideoError
from ..registry import resolve_type
from .coco import coco_methods
from .folders import folder_methods
from .label_maps import check_maps

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def build_dataset(
    dataset: dict,
    trust_data: bool = False,
    num_classes: int | None = None,
    skip_broken: bool = False,
    classes: Sequence[str] | None = None,
    ignore_index: int = 255,
) -> Any:
    """Build and read a data set, whose pipeline then checks files before it decodes them.

    Args:
        dataset: its config, perhaps of a RepeatDataset, ConcatDataset or the like.
        trust_data: whether names and links may lead out of its folder, and code in its files may run.
        num_classes: of the model, to check the labels.
        skip_broken: whether broken clips of a ``VideoDataset`` are skipped.
        classes: of the training set, by which folders are numbered; by default each data set numbers its own.
        ignore_index: the label in maps that the model's loss leaves out.

    Raises:
        UsageError: it cannot be read, or is empty.
    """
    settings = dict(trust_data=trust_data, num_classes=num_classes, skip_broken=skip_broken, classes=classes)

    def checked(part: Any) -> Any:
        inner = dict(type=build_dataset, dataset=part, ignore_index=ignore_index, **settings)
        return inner if isinstance(part, dict) else part

    kind = resolve_type(dataset.get('type'), DATASETS, dataset.get('_scope_'))
    if 'dataset' in dataset and kind is not CheckedVideos:
        dataset = dict(dataset, dataset=checked(dataset['dataset']))
    if isinstance(dataset.get('datasets'), (list, tuple)):
        dataset = dict(dataset, datasets=[checked(part) for part in dataset['datasets']])
    if not (inspect.isclass(kind) and issubclass(kind, BaseDataset)):
        return DATASETS.build(dataset)
    with plain_data(trust_data):
        if is_video_dataset(kind):
            return CheckedVideos(dataset, skip_broken, num_classes, trust_data)
        _check_classes(dataset)
        built = _read(dataset, kind, classes, num_classes)
    # The checks are kept in the data set, so that workers have them however they are started.
    roots = [] if trust_data else roots_of(built)
    steps = guard_images(built.pipeline.transforms, roots, num_classes, built.ann_file, ignore_index)
    built.pipeline = Compose(steps)
    return built


def _check_classes(dataset: dict) -> None:
    """Refuse a palette that does not fit the class names, and a file of names with a blank line: lines are labels."""
    names, colours = ((dataset.get('metainfo') or {}).get(key) for key in ('classes', 'palette'))
    if isinstance(names, (list, tuple)) and isinstance(colours, (list, tuple)) and len(names) != len(colours):
        raise UsageError(
            f'metainfo.palette has {len(colours)} colours and metainfo.classes has {len(names)} names: give each class '
            'a colour, or leave the palette out'
        )
    for file in (dataset.get('classes'), (dataset.get('metainfo') or {}).get('classes')):
        if isinstance(file, str) and os.path.isfile(file):
            with open(file, encoding='utf-8-sig') as lines:
                names = lines.read().rstrip().split('\n')
            blank = [number for number, name in enumerate(names, 1) if not name.strip()]
            if blank:
                raise UsageError(f'{file}: line {blank[0]} is blank: classes are numbered by line, name one in each')


def is_video_dataset(kind: Any) -> bool:
    """Whether a class is mmaction2's ``VideoDataset``."""
    return getattr(kind, '__module__', None) == 'mmaction.datasets.video_dataset'


def _read(dataset: dict, kind: type, classes: Sequence[str] | None, num_classes: int | None) -> BaseDataset:
    place = dataset.get('ann_file') or dataset.get('data_root') or kind.__name__
    lazy = dict(lazy_init=True) if 'lazy_init' in settings_of(kind) else {}
    try:
        built = DATASETS.build(dict(dataset, **lazy))
        place = built.ann_file or built.data_root or kind.__name__
        select = built.filter_data

        def check_and_select() -> list[dict]:
            check_maps(built, built.data_list)
            _check_labels(built, built.data_list, num_classes)
            entries = select()
            if built.data_list and not entries:
                raise UsageError(
                    f'{place}: no image can be used; each is empty, smaller than filter_cfg allows, or has no '
                    'annotation with an area inside it'
                )
            return entries

        checks = dict(filter_data=check_and_select, **coco_methods(built), **folder_methods(built, classes))
        with _overridden(built, checks), counted(built):
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


@contextlib.contextmanager
def _overridden(dataset: BaseDataset, methods: dict[str, Any]) -> Iterator[None]:
    """While it is open, a data set has other methods, which would be copied into each worker."""
    vars(dataset).update(methods)
    try:
        yield
    finally:
        for name in methods:
            delattr(dataset, name)


def _check_labels(dataset: BaseDataset, entries: Sequence[dict], num_classes: int | None) -> None:
    """Refuse labels that are no class of the model, which are those of the data set where they have names there."""
    names = dataset.metainfo.get('classes')
    number = len(names) if names and not isinstance(names, str) else num_classes  # a text is refused later
    if number is None:
        return
    for entry in entries:
        label = entry.get('gt_label')
        if isinstance(label, int) and not 0 <= label < number:
            raise UsageError(
                f"{entry.get('img_path', dataset.ann_file)}: it has the label {label}, and the model's classes end at "
                f'{number - 1}'
            )


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


def configured(cfg: Config, *loaders: str) -> Iterator[tuple[str, dict]]:
    """The innermost data sets of dataloaders of a config, with their places in it."""
    for loader in loaders:
        yield from innermost((cfg.get(loader) or {}).get('dataset'), f'{loader}.dataset')


def with_inner(dataset: Any) -> Iterator[Any]:
    """A built data set and, depth first, those inside RepeatDataset, ConcatDataset and the like."""
    yield dataset
    for part in [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())]:
        if part is not None:
            yield from with_inner(part)


@contextlib.contextmanager
def clear_data_errors(trust_data: bool = False) -> Iterator[None]:
    """While it is open, a file of a data set that cannot be read raises :class:`UsageError` with the file's name."""
    try:
        with plain_data(trust_data):
            yield
    except (ImageError, DataError, VideoError) as error:
        raise UsageError(one_line(error)) from error
