"""Published weights: recognising a file's layout by its names, and renaming it to ours."""

from .published import convert_published_state_dict, register_published_weights

__all__ = ['convert_published_state_dict', 'register_published_weights']
