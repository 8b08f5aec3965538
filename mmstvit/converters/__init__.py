"""Conversion of published checkpoints to the parameter names of mmstvit."""

from .published import convert_published_state_dict, register_published_weights

__all__ = ['convert_published_state_dict', 'register_published_weights']
