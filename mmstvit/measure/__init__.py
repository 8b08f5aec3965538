"""Measure networks: multiply-adds, parameters and tokens, times, and memory."""

from .complexity import count
from .networks import load_network
from .speed import benchmark
from .timing import Timing

__all__ = ['Timing', 'benchmark', 'count', 'load_network']
