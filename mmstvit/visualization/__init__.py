"""Visualization of tokens: token maps, class activation, pictures."""

from .maps import LayerMaps, TokenMaps
from .recording import recording, token_maps

__all__ = ['LayerMaps', 'TokenMaps', 'recording', 'token_maps']
