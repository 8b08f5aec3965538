"""Data sets, registered in ``mmstvit.registry.DATASETS``."""

from .digits import Digits, digit_scans

__all__ = ['Digits', 'digit_scans']
