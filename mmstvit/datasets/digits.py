"""The handwritten digits that scikit-learn ships: 1,797 real scans, the data every small experiment here runs on.

scikit-learn takes seconds to import, and this module is imported to look a data set up that is never read.
"""

import functools
from collections.abc import Sequence

import numpy as np
from mmengine.dataset import BaseDataset

from ..registry import DATASETS

SPLITS = ('train', 'val')


@functools.lru_cache(maxsize=1)
def _scans() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Pixel values are counts from 0 to 16 of set bits in a 4 x 4 block of the original scan.
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


def digit_scans(split: str, val_fraction: float = 0.25, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of a split; splits of one seed are disjoint and stratified.

    Args:
        split: ``'train'`` or ``'val'``.
        val_fraction: share of the scans that is held out, between 0 and 1.
        seed: of the split.

    Returns:
        Images (N, 8, 8), uint8, white strokes on black, and labels (N,).

    Raises:
        ValueError: an unknown split, or a fraction that leaves one split empty.
    """
    from sklearn.model_selection import train_test_split

    if split not in SPLITS:
        raise ValueError(f'split={split!r} is unknown, choose from {SPLITS}')
    if not 0 < val_fraction < 1:
        raise ValueError(f'val_fraction={val_fraction} must lie between 0 and 1')
    images, labels = _scans()
    parts = train_test_split(
        np.arange(len(labels)), test_size=val_fraction, random_state=seed, shuffle=True, stratify=labels
    )
    chosen = np.sort(parts[SPLITS.index(split)])
    return images[chosen], labels[chosen]


@DATASETS.register_module()
class Digits(BaseDataset):
    """In-memory classification data set of scikit-learn's handwritten digits, for mmpretrain.

    Each sample has ``img`` (8, 8, 3), uint8, in place of a file name, so the pipeline begins without a loading step.

    Args:
        split: ``'train'`` or ``'val'``.
        val_fraction: share of the 1,797 scans that is held out.
        seed: of the split.
        pipeline: transforms.
        indices: the first n samples, or the samples at these positions.
        test_mode: whether the pipeline may not drop samples.
    """

    METAINFO = dict(classes=tuple('0123456789'))

    def __init__(
        self,
        split: str = 'train',
        val_fraction: float = 0.25,
        seed: int = 0,
        pipeline: Sequence = (),
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
    ) -> None:
        self.split, self.val_fraction, self.seed = split, val_fraction, seed
        super().__init__(pipeline=list(pipeline), indices=indices, test_mode=test_mode)

    def load_data_list(self) -> list[dict]:
        """Return one dict per image: ``img``, its shapes, and ``gt_label``."""
        images, labels = digit_scans(self.split, self.val_fraction, self.seed)
        return [
            dict(img=np.repeat(image[..., None], 3, axis=-1), img_shape=(8, 8), ori_shape=(8, 8), gt_label=int(label))
            for image, label in zip(images, labels, strict=True)
        ]
