"""Models, registered in ``mmstvit.registry.MODELS``."""

from .backbones import STViT

__all__ = ['STViT']
