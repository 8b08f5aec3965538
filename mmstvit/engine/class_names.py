"""Names of classes: of the data sets of a config, and of a checkpoint, which must agree."""

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from ..errors import UsageError
from .datasets import configured
from .folders import shown
from .terminal import warn


def check_configured_names(cfg: Config, loaders: Sequence[str]) -> None:
    """Raise :class:`UsageError` where the ``metainfo.classes`` of dataloaders' data sets differ."""
    named: dict[str, tuple[str, ...]] = {}
    for key, dataset in configured(cfg, *loaders):
        names = (dataset.get('metainfo') or {}).get('classes')
        if names and not isinstance(names, str):  # that is a file, or refused when the data set is built
            named[key] = tuple(names)
    for key, names in named.items():
        _check_equal(next(iter(named.values())), names, next(iter(named)), key)


def class_names(dataset: Any) -> tuple[str, ...] | None:
    """The names of a data set's classes, where it has any."""
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if isinstance(names, str):
        raise UsageError(f"metainfo.classes is the text '{names}': write a tuple of names, ('{names}',)")
    return tuple(map(str, names)) if names else None


def check_same_names(train: Any, val: Any) -> None:
    """Raise :class:`UsageError` for a validation on other classes than those of the training."""
    ours, theirs = class_names(train), class_names(val)
    if ours and theirs:
        _check_equal(ours, theirs, 'the training set', 'the validation set')


def _check_equal(first: tuple[str, ...], second: tuple[str, ...], one: str, other: str) -> None:
    if first != second:
        raise UsageError(f'metainfo.classes differ: {_difference(first, second, one, other)}')


def check_checkpoint_names(meta: dict, dataset: Any, filename: str, only_warn: bool) -> None:
    """Raise :class:`UsageError` where a data set has other classes than those a checkpoint was trained with.

    Args:
        meta: of the checkpoint.
        dataset: what the model will be tested on or trained with.
        filename: of the checkpoint.
        only_warn: whether to warn instead, since the model will learn the new ones.
    """
    ours, theirs = class_names(dataset), (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES')
    theirs = tuple(map(str, theirs)) if isinstance(theirs, (list, tuple)) else ()
    if not ours or not theirs or ours == theirs:
        return
    what = _difference(theirs, ours, 'the checkpoint', 'the data')
    line = f'{filename} was trained with other classes than those of the data: {what}'
    if only_warn:
        warn(line)
        return
    raise UsageError(f"{line}; name the checkpoint's classes in their order in dataset.metainfo.classes")


def _difference(first: Sequence[str], second: Sequence[str], one: str, other: str) -> str:
    """What differs in two lists of classes, which are those of ``one`` and of ``other``."""
    only = [[name for name in a if name not in set(b)] for a, b in ((first, second), (second, first))]
    if any(only):
        return ', '.join(
            f'only {whose} has {shown(names)}' for whose, names in zip((one, other), only, strict=True) if names
        )
    if len(first) != len(second):
        return f'{len(first)} and {len(second)}, some of them twice'
    i = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    return f'they have another order, number {i} is {first[i]} for {one} and {second[i]} for {other}'
