"""Converter of T2T-ViT checkpoints, in the layouts of their authors and of mmpretrain."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .deit import split_positions
from .rename import mmpretrain_layers, rename

DESCRIPTIONS = {
    'authors': 'T2T-ViT in the names of its authors',
    'mmpretrain': 'T2T-ViT in the names of mmpretrain',
}

_LAYER = r'backbone.encoder.layers.\1.'
_TOKENS = r'backbone.patch_embed.attention\1.'
_RULES = {
    'authors': [
        (r'tokens_to_token\.attention(\d)\.((?:attn|norm1|norm2|mlp\.fc1|mlp\.fc2)\..*)', _TOKENS + r'\2'),
        (r'tokens_to_token\.attention(\d)\.kqv\.(.*)', _TOKENS + r'attn.qkv.\2'),
        (r'tokens_to_token\.attention(\d)\.(proj\..*)', _TOKENS + r'attn.\2'),
        (r'tokens_to_token\.attention(\d)\.w', _TOKENS + r'attn.features'),
        (r'tokens_to_token\.attention(\d)\.mlp\.0\.(.*)', _TOKENS + r'mlp.fc1.\2'),
        (r'tokens_to_token\.attention(\d)\.mlp\.2\.(.*)', _TOKENS + r'mlp.fc2.\2'),
        (r'tokens_to_token\.project\.(.*)', r'backbone.patch_embed.projection.\1'),
        (r'blocks\.(\d+)\.(.*)', _LAYER + r'\2'),
        (r'(norm\..*|cls_token|pos_embed)', r'backbone.\1'),
        (r'head\.(weight|bias)', r'head.layers.head.\1'),
    ],
    'mmpretrain': [
        *mmpretrain_layers(r'tokens_to_token\.attention(\d)', _TOKENS),
        *mmpretrain_layers(r'encoder\.(\d+)', _LAYER),
        (r'(?:backbone\.)?tokens_to_token\.project\.(.*)', r'backbone.patch_embed.projection.\1'),
        (r'(?:backbone\.)?(norm\..*|cls_token|pos_embed)', r'backbone.\1'),
        (r'head\.fc\.(weight|bias)', r'head.layers.head.\1'),
    ],
}


def recognise(names: set[str]) -> str | None:
    """Return the layout of a set of parameter names, or ``None``."""
    if {'tokens_to_token.project.weight', 'blocks.0.attn.qkv.weight'} <= names:
        return 'authors'
    bare = {name.removeprefix('backbone.') for name in names}
    if {'tokens_to_token.project.weight', 'encoder.0.attn.qkv.weight'} <= bare:
        return 'mmpretrain'
    return None


def convert(state_dict: dict[str, Tensor], layout: str, grid: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Convert the parameters of a T2T-ViT.

    Args:
        state_dict: a state dict of ``layout``.
        layout: what :func:`recognise` said.
        grid: cells of the network's position table along each axis, where it is known.

    Returns:
        The state dict of a classifier with a ``T2TViT`` backbone.

    Raises:
        ValueError: the position table belongs to no square image, nor to one of ``grid``.
    """
    renamed = rename(state_dict, _RULES[layout])
    for name, value in state_dict.items():
        if '.kqv.' in name:
            # The performer's one projection is of key, query, value.
            key, query, rest = value.chunk(3)
            renamed.update(rename({name: torch.cat((query, key, rest))}, _RULES[layout]))
    split_positions(renamed, grid)
    return renamed
