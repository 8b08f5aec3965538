"""Backbones, registered in ``mmstvit.registry.MODELS``."""

from .stvit import STViT
from .stvit_r import STViTR
from .stvit_swin import STViTSwin, STViTSwin3D
from .t2t_vit import T2TViT

__all__ = ['STViT', 'STViTR', 'STViTSwin', 'STViTSwin3D', 'T2TViT']
