"""Data sets, registered in ``mmstvit.registry.DATASETS``."""

from .cached_images import CachedImages
from .checked_videos import CheckedVideos
from .digits import Digits, digit_scans

__all__ = ['CachedImages', 'CheckedVideos', 'Digits', 'digit_scans']
