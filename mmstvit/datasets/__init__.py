"""Data sets, registered in ``mmstvit.registry.DATASETS``."""

from .checked_videos import CheckedVideos
from .digits import Digits, digit_scans

__all__ = ['CheckedVideos', 'Digits', 'digit_scans']
