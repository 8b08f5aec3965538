"""A data set around mmaction2's ``VideoDataset`` that names broken clips, and skips them where that is asked for."""

import logging
import os.path
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.dist import all_reduce
from mmengine.fileio import list_from_file
from mmengine.logging import print_log
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import get_worker_info

from ..io.roots import TRUST_DATA, leads_outside, roots_of
from ..io.videos import VideoError, existing, guard_reading
from ..paths import is_address
from ..registry import DATASETS
from .counts import counted

_MAX_WORKERS = 256


@DATASETS.register_module()
class CheckedVideos:
    """mmaction2's ``VideoDataset``, with a clear line for each fault of its list and of its files.

    The list is checked at the start: lines that are no name and label, labels that the model has no class for, clips
    that are not there. What is in a clip shows when it is read.

    Args:
        dataset: the ``VideoDataset``, built or its config.
        skip_broken: whether to read another clip in the place of one that is not there or cannot be read. Each is
            logged once; :meth:`broken` has them all.
        num_classes: of the model, to check the labels.
        trust_data: whether names and links may lead out of the folder that is put before the names of the list.

    Raises:
        VideoError: a fault in the list, when it is built; a clip that cannot be read, when it is asked for.
    """

    def __init__(
        self, dataset: Any, skip_broken: bool = False, num_classes: int | None = None, trust_data: bool = False
    ) -> None:
        if isinstance(dataset, dict):
            # Not read before it was checked.
            dataset = MMENGINE_DATASETS.build(dict(dataset, lazy_init=True))
        self.dataset, self.skip_broken, self.num_classes = dataset, skip_broken, num_classes
        self.roots = [] if trust_data else roots_of(dataset)
        dataset.pipeline = Compose(guard_reading(dataset.pipeline.transforms))
        self._check_list()
        with counted(dataset):
            self.full_init()
        # Shared with the workers, however they are started.
        self._broken = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()
        self._reading = torch.full((_MAX_WORKERS,), -1).share_memory_()

    @property
    def metainfo(self) -> dict:
        """That of the data set inside."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Read the list, as mmengine asks of a data set."""
        self.dataset.full_init()

    def get_data_info(self, idx: int) -> dict:
        """File name and label of a clip."""
        return self.dataset.get_data_info(idx)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> dict:
        while True:
            try:
                return self._read(idx)
            except VideoError as error:
                if not self.skip_broken:
                    raise
                if not self._broken[idx]:
                    print_log(f'skipped: {error}', logger='current', level=logging.WARNING)
                self._broken[idx] = True
            whole = np.flatnonzero(~self._broken.numpy())
            if not len(whole):
                raise VideoError(f'{self.dataset.ann_file}: none of its {len(self)} clips can be read')
            idx = int(np.random.choice(whole))

    def _read(self, idx: int) -> dict:
        worker = get_worker_info()
        slot = worker.id % _MAX_WORKERS if worker else 0
        self._reading[slot] = idx
        try:
            return self.dataset[idx]
        finally:
            self._reading[slot] = -1

    def broken(self) -> list[str]:
        """The files that were skipped, by any worker of any process."""
        flags = self._broken.to(torch.int32)
        all_reduce(flags, op='max')
        return [self._name(idx) for idx in flags.nonzero().flatten()]

    def being_read(self) -> list[str]:
        """The files that the workers of this process are reading: where one has crashed, it was at one of these."""
        return [self._name(idx) for idx in self._reading.tolist() if idx >= 0]

    def _name(self, idx: int) -> str:
        return self.dataset.get_data_info(int(idx))['filename']

    def _check_list(self) -> None:
        path = self.dataset.ann_file
        names = list(self._names())
        if not names:
            raise VideoError(f'{path}: the list is empty')
        absent = [name for name in names if not is_address(name) and existing(name) is None]
        if absent and (not self.skip_broken or len(absent) == len(names)):
            raise VideoError(
                f'{path}: {len(absent)} of its {len(names)} clips are not there, the first is {absent[0]}; names are '
                "taken below the data set's data_prefix.video"
            )

    def _names(self) -> Iterator[str]:
        """The file names of the list, each of whose lines is checked as mmaction2 would read it."""
        path, prefix = self.dataset.ann_file, self.dataset.data_prefix['video']
        try:
            lines = list_from_file(path)
        except (OSError, ValueError) as error:
            raise VideoError(f'{path}: it cannot be read as a list of clips ({error})') from error
        for number, line in enumerate(lines, 1):
            name, *labels = line.strip().split(self.dataset.delimiter)
            fault = self._fault(name, labels)
            if fault:
                raise VideoError(f'{path}: line {number}, {line.strip()[:80]!r}, {fault}')
            name = name if prefix is None else os.path.join(prefix, name)
            real = leads_outside(name, self.roots)
            if real:
                raise VideoError(
                    f"{path}: line {number}, {name}, leads out of the data set's folder, to {real}; {TRUST_DATA}"
                )
            yield name

    def _fault(self, name: str, labels: list[str]) -> str | None:
        if not name:
            return 'has no file name'
        if not labels and not self.dataset.test_mode:
            return 'has no label behind the file name'
        if len(labels) > 1 and not self.dataset.multi_class:
            return "is not a file name and a label; for names with spaces choose another delimiter, e.g. delimiter=','"
        for label in labels:
            if not label.strip().isdecimal():
                return f'has the label {label!r}, which is no class number'
            if self.num_classes is not None and int(label) >= self.num_classes:
                return f"has the label {label}, and the model's classes end at {self.num_classes - 1}"
        return None
