"""Backbones, registered in ``mmstvit.registry.MODELS``."""

from .stvit import STViT

__all__ = ['STViT']
