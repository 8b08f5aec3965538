"""Count classes and objects of data sets while they are read, so that nothing is read twice."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from mmengine.dataset import BaseDataset


@dataclass
class Counts:
    """What a data set, or several that are joined, has.

    Attributes:
        samples: that are used, each once however often a wrapper repeats them.
        left_out: samples of the annotation file that ``filter_cfg`` leaves out.
        labels: samples by class number, of detection objects; crowds are not among them.
        objects: of detection, else ``None``.
        crowds: regions of many objects, which are not trained on.
        empty: images without an object.
        sizes: width and height of each size of image that the annotations tell.
    """

    samples: int = 0
    left_out: int = 0
    labels: Counter = field(default_factory=Counter)
    objects: int | None = None
    crowds: int = 0
    empty: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)

    def add(self, entries: Iterable[dict]) -> None:
        """Count entries as mmpretrain, mmdet and mmaction2 list them."""
        for entry in entries:
            self.samples += 1
            if isinstance(entry.get('instances'), list):
                self._add_objects(entry['instances'])
            else:
                label = entry.get('gt_label', entry.get('label', ()))
                self.labels.update((label,) if type(label) is int else np.ravel(label).tolist())
            if 'width' in entry and 'height' in entry:
                self.sizes.add((entry['width'], entry['height']))

    def _add_objects(self, instances: list[dict]) -> None:
        labels = [one['bbox_label'] for one in instances if 'bbox_label' in one and not one.get('ignore_flag')]
        self.labels.update(labels)
        self.objects = (self.objects or 0) + len(labels)
        self.crowds += len(instances) - len(labels)
        self.empty += not instances

    def join(self, other: 'Counts') -> None:
        """Add what another data set has."""
        for name in ('samples', 'left_out', 'crowds', 'empty'):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.objects is not None:
            self.objects = (self.objects or 0) + other.objects
        self.labels.update(other.labels)
        self.sizes |= other.sizes


@contextlib.contextmanager
def counted(dataset: BaseDataset) -> Iterator[None]:
    """While it is open, a data set that is read gets ``counts``, the :class:`Counts` of what it reads."""
    select, before = dataset.filter_data, vars(dataset).get('filter_data')

    def filter_and_count() -> list[dict]:
        read = len(dataset.data_list)
        entries = select()
        dataset.counts = Counts(left_out=read - len(entries))
        if dataset._indices is None:
            dataset.counts.add(entries)
        return entries

    dataset.filter_data = filter_and_count
    try:
        yield
    finally:  # it would be copied into each worker
        if before is None:
            del dataset.filter_data
        else:
            dataset.filter_data = before
    if dataset._indices is not None or not hasattr(dataset, 'counts'):  # a part, or it was read when it was built
        dataset.counts = Counts()
        dataset.counts.add(dataset.get_data_info(i) for i in range(len(dataset)))
