"""Fit a config to a folder of one's own data: its data sets, classes, metrics, batch and learning rate."""

import copy
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from ..engine.checks import HEADS
from ..engine.data_folders import Part, check_lists, read_class_folders, read_coco_folder, write_lists
from ..engine.running import dumpable
from ..engine.schedules import scale_minimum, shorten_warm_up
from ..errors import UsageError
from ..paths import is_address
from ..registry import entries_of, type_name
from .files import IMAGES, VIDEOS

_LEAST_BATCHES = 10  # of an epoch, by default: few images make small batches
_KEPT = ('pipeline', 'filter_cfg', 'test_mode', 'backend_args')  # settings of the config's data sets that stay


def config_for_folder(cfg: Config, folder: str, file: Path, fixed: Collection[str] = ()) -> Config:
    """Fit a config of any of the toolboxes to a folder of one's own data.

    The classes are those of the folder, in every head and metric. Without a held-out part, one is split off by chance:
    ``randomness.seed``, by default 0, chooses. The learning rate is scaled by the batch size over
    ``auto_scale_lr.base_batch_size``, and the batch is made smaller where there are few images.

    Args:
        cfg: what is trained.
        folder: for mmpretrain and mmaction2 with class folders of images or videos, see :func:`.read_class_folders`;
            for mmdet in COCO's format, see :func:`.read_coco_folder`.
        file: that the new config will be written to. The annotation files of a split are written beside it and named by
            it, last of all.
        fixed: names of settings that stay as they are in ``cfg``.

    Returns:
        A new config without anything that a runner does not read.

    Raises:
        UsageError: the folder is not such a one, the config would be written into it, an annotation file would be
            written over another one, or the toolbox is mmseg.
    """
    place, file = (Path(os.path.abspath(path.expanduser())) for path in (Path(folder), file))
    if not place.is_dir():
        raise UsageError(f'there is no folder {folder}: --data takes a folder')
    if place.resolve() == file.parent.resolve():
        raise UsageError(f'the work dir would be the data folder {folder}: give another one with --work-dir')
    cfg = dumpable(copy.deepcopy(cfg))
    cfg.randomness = dict(cfg.get('randomness') or {})
    if cfg.randomness.get('seed') is None:
        cfg.randomness.seed = 0
    readers: dict[str, Callable] = {'mmdet': _coco}
    readers.update(mmpretrain=partial(_class_folders, IMAGES), mmaction=partial(_class_folders, VIDEOS))
    if cfg.default_scope not in readers:
        raise UsageError(
            f'--data is not for {cfg.default_scope}, whose label maps do not tell the names of the classes: write a '
            'config over the one that is trained, with data_root, metainfo.classes and num_classes'
        )
    classes, datasets, parts = readers[cfg.default_scope](place, file, cfg.randomness.seed)
    check_lists(parts.values(), file)
    number = parts['train'].number
    for name, dataset in datasets.items():
        loader = cfg.get(f'{name}_dataloader')
        if loader:
            loader.dataset = _replaced(loader.dataset, dict(dataset, metainfo=dict(classes=classes)), cfg.default_scope)
            _fit_metrics(cfg.get(f'{name}_evaluator'), len(classes), dataset)
    if type_name(cfg.train_dataloader.get('sampler') or {}) == 'RepeatAugSampler':
        # An epoch of it has a third of the images.
        cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    for part in (cfg.model, cfg.get('data_preprocessor')):
        _set_classes(part, len(classes), '' if part is cfg.model else 'data_preprocessor')
    print(f'{folder}: {number} training samples of {len(classes)} classes.')
    _choose_weights(cfg)
    _choose_batch(cfg, number, fixed)
    write_lists(parts.values())
    return cfg


# -------------------------------------------------------------------------------------------------------- data sets
def _class_folders(endings: Sequence[str], folder: Path, file: Path, seed: int) -> tuple[tuple, dict, dict[str, Part]]:
    clips = endings is VIDEOS
    # mmaction2 splits a line at each delimiter, and names have spaces; mmpretrain splits it at the last space.
    delimiter = '\t' if clips else ' '
    classes, parts = read_class_folders(folder, endings, file, seed, clips, delimiter)
    datasets = {}
    for name, part in parts.items():
        if clips:
            data = dict(type='VideoDataset', data_prefix=dict(video=str(part.root)), delimiter=delimiter)
        else:
            data = dict(type='CustomDataset', data_root=str(part.root), extensions=IMAGES)
        datasets[name] = dict(data, ann_file=str(part.file or ''))
    return classes, datasets, parts


def _coco(folder: Path, file: Path, seed: int) -> tuple[tuple, dict, dict[str, Part]]:
    classes, parts = read_coco_folder(folder, file, seed)
    datasets = {
        name: dict(
            type='CocoDataset', data_root=str(folder), ann_file=str(part.file), data_prefix=dict(img=f'{part.root}/')
        )
        for name, part in parts.items()
    }
    return classes, datasets, parts


def _replaced(old: dict, new: dict, scope: str) -> dict:
    """Put a data set into the place of the one in a config, which may be inside others, with that one's pipeline."""
    if isinstance(old.get('dataset'), dict):
        return ConfigDict(old, dataset=_replaced(old['dataset'], new, scope))
    if old.get('datasets'):
        return _replaced(old['datasets'][0], new, scope)
    kept = {key: old[key] for key in _KEPT if key in old}
    kinds = [type_name(step) for step in kept.get('pipeline', ())]
    if scope == 'mmpretrain' and not any(kind.startswith('Load') for kind in kinds):
        kept['pipeline'] = [dict(type='LoadImageFromFile'), *kept.get('pipeline', ())]
    if scope == 'mmaction' and not any(kind.endswith('Init') for kind in kinds):
        raise UsageError('the config reads no video files (a step such as OpenCVInit): take one that does')
    return ConfigDict(**new, **kept)


# ---------------------------------------------------------------------------------------------------------- classes
def _set_classes(part: Any, number: int, place: str) -> None:
    """Set the number of classes, and how many best ones count, in a part of the model's config."""
    if isinstance(part, (list, tuple)):
        for i, value in enumerate(part):
            _set_classes(value, number, f'{place}.{i}')
    if not isinstance(part, dict):
        return
    if HEADS.fullmatch(place) or re.match(r'(data_preprocessor|train_cfg)\b', place):
        if 'num_classes' in part:
            part['num_classes'] = number
        if 'topk' in part:
            part['topk'] = _limited(part['topk'], number)
    for key, value in part.items():
        _set_classes(value, number, f'{place}.{key}'.lstrip('.'))


def _limited(topk: Any, number: int) -> Any:
    """Leave out what asks for more of the best than there are classes."""
    if isinstance(topk, (list, tuple)):
        return tuple(k for k in topk if k <= number) or (1,)
    return min(topk, number)


def _fit_metrics(evaluator: Any, number: int, dataset: dict) -> None:
    for metric in entries_of(evaluator):
        if 'topk' in metric:
            metric['topk'] = _limited(metric['topk'], number)
        if type_name(metric) == 'AccMetric':
            options = metric.setdefault('metric_options', ConfigDict()).setdefault('top_k_accuracy', ConfigDict())
            options['topk'] = _limited(options.get('topk', (1, 5)), number)
        if type_name(metric).endswith('CocoMetric'):
            metric['ann_file'] = dataset['ann_file']


# --------------------------------------------------------------------------------------------------------- training
def _choose_weights(cfg: Config) -> None:
    """Say what training begins from, and drop files that the config names and that are not there."""
    begins = cfg.get('load_from')
    for owner in _initialised(cfg.model):
        file = owner['init_cfg'].get('checkpoint')
        if cfg.get('load_from') or not (is_address(str(file)) or os.path.isfile(str(file))):
            owner.pop('init_cfg')
        else:
            begins = begins or file
    nothing = 'none, from nothing; --checkpoint FILE names some to begin from'
    print(f'Weights: {begins or nothing}.')


def _initialised(part: Any) -> Iterator[dict]:
    """The parts of a model's config that begin from a file."""
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, (list, tuple)) else ():
        yield from _initialised(value)
    init = part.get('init_cfg') if isinstance(part, dict) else None
    if isinstance(init, dict) and init.get('type') == 'Pretrained':
        yield part


def _choose_batch(cfg: Config, number: int, fixed: Collection[str]) -> None:
    """Choose the size of the batch, and let the learning rate follow it."""
    loader, optimizer = cfg.train_dataloader, cfg.optim_wrapper.get('optimizer') or {}
    if 'train_dataloader.batch_size' not in fixed:
        while loader.batch_size > 1 and loader.batch_size * _LEAST_BATCHES > number:
            loader.batch_size //= 2
    base, rate = (cfg.get('auto_scale_lr') or {}).get('base_batch_size'), optimizer.get('lr')
    said = f'Batch size {loader.batch_size} of each process, {cfg.train_cfg.get("max_epochs")} epochs'
    if base and rate:
        cfg.auto_scale_lr.enable = 'optim_wrapper.optimizer.lr' not in fixed
        if cfg.auto_scale_lr.enable:
            scale_minimum(cfg, rate)
            rate = f'{rate:g} x batch / {base} = {rate * loader.batch_size / base:.3g} for one process'
    print(f'{said}, learning rate {rate}.')
    if cfg.train_cfg.get('max_epochs'):
        shorten_warm_up(cfg, -(-number // loader.batch_size) * cfg.train_cfg.max_epochs)
