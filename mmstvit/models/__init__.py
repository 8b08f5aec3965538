"""Models, registered in ``mmstvit.registry.MODELS``."""

from .backbones import STViT, STViTR, STViTSwin, STViTSwin3D, T2TViT
from .distillation import DistilledClassifier
from .necks import SimpleFeaturePyramid, TokenRecovery
from .reduction import reduce_, reduce_by_text, restore_

__all__ = [
    'DistilledClassifier',
    'STViT',
    'STViTR',
    'STViTSwin',
    'STViTSwin3D',
    'SimpleFeaturePyramid',
    'T2TViT',
    'TokenRecovery',
    'reduce_',
    'reduce_by_text',
    'restore_',
]
