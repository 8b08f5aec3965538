"""A data set of small images that are decoded once and kept in memory."""

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import Compose
from mmengine.registry import DATASETS as MMENGINE_DATASETS

from ..registry import DATASETS


@DATASETS.register_module()
class CachedImages:
    """Keep what the pipeline of a data set gives, and run only the steps that differ from epoch to epoch.

    For images so small that opening and decoding their files takes longer than training on them: 50,000 images of
    32 px take 200 MB. The images are read when the data set is built, or at the first access with ``lazy_init``.

    Args:
        dataset: of mmpretrain, built or its config; its own pipeline has the steps that give the same each time, such
            as ``LoadImageFromFile`` and ``Resize``.
        pipeline: the steps that follow at each access, such as ``RandomCrop``, ``RandomFlip`` and ``PackInputs``.
        lazy_init: whether reading waits for the first access.
    """

    def __init__(self, dataset: Any, pipeline: Sequence = (), lazy_init: bool = False) -> None:
        self.dataset = MMENGINE_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.pipeline = Compose(pipeline)
        self._samples: Any = None  # until they are decoded
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """That of the data set inside."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Read and decode all images; a second call does nothing."""
        if self._samples is None:
            self.dataset.full_init()
            self._samples = [self.dataset[i] for i in range(len(self.dataset))]

    def get_data_info(self, idx: int) -> dict:
        """What the data set inside says of a sample."""
        return self.dataset.get_data_info(idx)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> Any:
        self.full_init()
        sample = self._samples[idx]
        # Some steps change the image in place.
        return self.pipeline(dict(sample, img=sample['img'].copy()))
