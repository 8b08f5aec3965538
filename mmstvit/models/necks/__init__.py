"""Necks, registered in ``mmstvit.registry.MODELS``."""

from .simple_feature_pyramid import SimpleFeaturePyramid
from .token_recovery import TokenRecovery

__all__ = ['SimpleFeaturePyramid', 'TokenRecovery']
