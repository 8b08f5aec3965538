"""Check the data of a config before any training: each split read, compared with the others, one batch of it made."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner

from ..datasets.counts import Counts
from ..errors import UsageError, describe, one_line
from .checks import check_training
from .class_names import check_configured_names
from .data_files import Files, files_of, shared_files, unused_files
from .data_report import counts_of, lacking, names_of
from .datasets import clear_data_errors
from .folders import shown
from .running import build_runner, check_data
from .strategy import drop_strategy

SPLITS = ('train', 'val', 'test')


@dataclass
class Split:
    """A split that could be read.

    Attributes:
        name: one of :data:`SPLITS`.
        dataset: that was built.
        counts: of its classes and objects.
        files: of its samples.
        inputs: its first batch as the model gets it, from its data preprocessor; ``None`` where that failed.
    """

    name: str
    dataset: Any
    counts: Counts
    files: Files
    inputs: Any = None


@dataclass
class DataCheck:
    """What was found.

    Attributes:
        splits: that could be read.
        names: of the classes, by number.
        problems: a line for each thing at which training or testing would go wrong.
        notes: a line for each thing that is worth knowing.
        preprocessor: of the model, which made the inputs.
    """

    splits: list[Split] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    preprocessor: Any = None

    @contextlib.contextmanager
    def collecting(self, where: str = 'the config') -> Iterator[None]:
        """While it is open, what is raised is a problem, after which the rest can be looked at."""
        try:
            yield
        except Exception as error:  # a pipeline may raise anything
            line = one_line(error) if isinstance(error, UsageError) else f'{where}: {describe(error)}'
            if line not in self.problems:
                self.problems.append(line)


def check_config(cfg: Config, trust_data: bool = False) -> DataCheck:
    """Build the data sets of a config as training and testing would, and look at them.

    Args:
        cfg: of any of the toolboxes; it is changed.
        trust_data: as of :func:`.build_runner`.

    Raises:
        UsageError: its model cannot be built.
    """
    check = DataCheck()
    splits = [name for name in SPLITS if cfg.get(f'{name}_dataloader')]
    if 'val' in splits and 'test' in splits and cfg.test_dataloader == cfg.val_dataloader:
        splits.remove('test')
    if not splits:
        raise UsageError('the config has no dataloader: there is nothing to check')
    with check.collecting():
        if 'train' in splits:
            check_training(cfg)
    with check.collecting():
        check_configured_names(cfg, [f'{name}_dataloader' for name in splits])
    there = []
    for name in splits:
        with check.collecting():
            check_data(cfg, (f'{name}_dataloader',))
            there.append(name)
    runner = _runner(cfg, there, trust_data)
    check.preprocessor = runner.model.data_preprocessor
    for name in there:
        with check.collecting(f'{name}_dataloader'), clear_data_errors(trust_data):
            check.splits.append(_read(runner, name))
    read = {split.name for split in check.splits}
    for purpose, needed in (('train', 'train'), ('test', 'test' if 'test' in read else 'val')):
        if needed in read:
            with check.collecting():
                runner.check_built(purpose)
    for split in check.splits:
        with check.collecting(f'{split.name}_dataloader: no batch'), clear_data_errors(trust_data):
            _take_batch(runner, split)
    _compare(check)
    return check


def _runner(cfg: Config, splits: Sequence[str], trust_data: bool) -> Runner:
    """Build the runner of a config for one process that logs nowhere but into its work dir."""
    cfg.launcher, cfg.visualizer = 'none', None
    drop_strategy(cfg)
    for name in SPLITS:
        loader = cfg.get(f'{name}_dataloader') if name in splits else None
        if loader is None:  # mmengine wants all of a split or nothing of it
            for key in (f'{name}_dataloader', f'{name}_cfg', *([f'{name}_evaluator'] if name != 'train' else ())):
                cfg[key] = None
        else:
            loader.num_workers, loader.persistent_workers = 0, False
            loader.pop('prefetch_factor', None)
    if 'train' not in splits:
        cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.load_from, cfg.resume = None, False
    return build_runner(cfg, trust_data)


def _read(runner: Runner, name: str) -> Split:
    dataset = getattr(runner, f'{name}_loop').dataloader.dataset
    split = Split(name, dataset, counts_of(dataset), files_of(dataset))
    split.counts.labels.update(split.files.labels)
    return split


def _take_batch(runner: Runner, split: Split) -> None:
    """Make the inputs of the model of the first batch of a split."""
    batch = next(iter(getattr(runner, f'{split.name}_loop').dataloader))
    split.inputs = runner.model.data_preprocessor(batch, split.name == 'train')


# ------------------------------------------------------------------------------------------------------- comparison
def _compare(check: DataCheck) -> None:
    """Fill the problems and notes of what was read."""
    first = check.splits[0].dataset if check.splits else None
    check.names = names_of([split.counts for split in check.splits], first)
    for split in check.splits:
        absent = lacking(split.counts, check.names)
        if absent:
            check.notes.append(f'{split.name} lacks {len(absent)} of {len(check.names)} classes: {shown(absent)}')
        if split.counts.empty:
            check.notes.append(f'{split.name} has {split.counts.empty:,} images without an object')
        check.problems += split.files.faults
        if split.files.looked_at < len(split.files.paths):
            check.notes.append(
                f'{split.name}: {split.files.looked_at:,} of {len(split.files.paths):,} files were opened'
            )
    for folder, names in unused_files({split.name: split.files for split in check.splits}).items():
        check.notes.append(f'{folder}: {len(names):,} files are in no split: {shown(names)}')
    by_name = {split.name: split for split in check.splits}
    train = by_name.pop('train', None)
    if train:
        for other in by_name.values():
            _compare_files(check, train, other)


def _compare_files(check: DataCheck, train: Split, other: Split) -> None:
    pairs = shared_files(train.files, other.files)
    if pairs is None:
        check.notes.append(f'files of train and {other.name} are too many to look for copies')
    elif pairs:
        files = [name if name == same else f'{name} = {same}' for name, same in pairs]
        check.notes.append(f'{len(pairs):,} files of {other.name} are in train too: {shown(files)}')


def objects_to_find(split: Split) -> dict[int, tuple[np.ndarray, list[int]]]:
    """The objects of the samples of a batch of detection whose pipeline loads none, as it is in tests.

    Returns:
        Boxes (n, 4), two corners in pixels of the inputs, and labels, by the sample's number in the batch.
    """
    objects = {}
    for i, sample in enumerate(split.inputs['data_samples']):
        # Tests go through a data set in its order.
        info = split.dataset.get_data_info(i) if 'img_id' in sample.metainfo_keys() else {}
        if 'instances' in info and info['img_id'] == sample.img_id:
            boxes = np.array([one['bbox'] for one in info['instances']], float).reshape(-1, 4)
            scale = sample.metainfo.get('scale_factor', (1, 1))
            objects[i] = boxes * np.tile(scale, 2), [one['bbox_label'] for one in info['instances']]
    return objects
