"""Models, registered in ``mmstvit.registry.MODELS``."""

from .backbones import STViT, STViTR, STViTSwin, T2TViT
from .necks import SimpleFeaturePyramid, TokenRecovery

__all__ = ['STViT', 'STViTR', 'STViTSwin', 'SimpleFeaturePyramid', 'T2TViT', 'TokenRecovery']
