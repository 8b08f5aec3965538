"""Visualization of tokens: token maps, class activation, pictures."""

from .maps import LayerMaps, TokenMaps
from .recording import has_semantic_tokens, recording, token_maps

__all__ = ['LayerMaps', 'TokenMaps', 'has_semantic_tokens', 'recording', 'token_maps']
