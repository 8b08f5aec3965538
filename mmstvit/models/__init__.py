"""Models, registered in ``mmstvit.registry.MODELS``."""

from .backbones import STViT, STViTR, STViTSwin

__all__ = ['STViT', 'STViTR', 'STViTSwin']
