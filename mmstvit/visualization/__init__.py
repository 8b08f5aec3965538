"""Pictures of what semantic tokens stand for."""

from .maps import LayerMaps, TokenMaps
from .recording import recording, token_maps

__all__ = ['LayerMaps', 'TokenMaps', 'recording', 'token_maps']
