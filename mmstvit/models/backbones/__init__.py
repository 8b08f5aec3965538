"""Backbones, registered in ``mmstvit.registry.MODELS``."""

from .stvit import STViT
from .stvit_swin import STViTR, STViTSwin

__all__ = ['STViT', 'STViTR', 'STViTSwin']
