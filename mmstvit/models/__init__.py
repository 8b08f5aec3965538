"""Models, registered in ``mmstvit.registry.MODELS``."""

from .backbones import STViT, STViTR, STViTSwin
from .necks import SimpleFeaturePyramid, TokenRecovery

__all__ = ['STViT', 'STViTR', 'STViTSwin', 'SimpleFeaturePyramid', 'TokenRecovery']
