"""Models, registered in ``mmstvit.registry.MODELS``."""

from .backbones import STViT, STViTR, STViTSwin, STViTSwin3D, T2TViT
from .necks import SimpleFeaturePyramid, TokenRecovery
from .reduction import parse_reduction, reduce_, restore_

__all__ = [
    'STViT',
    'STViTR',
    'STViTSwin',
    'STViTSwin3D',
    'SimpleFeaturePyramid',
    'T2TViT',
    'TokenRecovery',
    'parse_reduction',
    'reduce_',
    'restore_',
]
