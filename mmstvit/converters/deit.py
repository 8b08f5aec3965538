"""Converter of DeiT and ViT checkpoints, in the layouts of timm and mmpretrain."""

import math

from torch import Tensor

from .rename import mmpretrain_layers, rename

DESCRIPTIONS = {
    'authors': 'DeiT or ViT in the names of its authors and of timm',
    'mmpretrain': 'DeiT or ViT in the names of mmpretrain',
}

# Old name -> new name, tried in order; the result is a classifier's state dict (``backbone.*`` and ``head.*``).
_LAYER = r'backbone.encoder.layers.\1.'
_RULES = {
    'authors': [
        (r'patch_embed\.proj\.(.*)', r'backbone.patch_embed.projection.\1'),
        (r'blocks\.(\d+)\.((?:norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\..*)', _LAYER + r'\2'),
        (r'blocks\.(\d+)\.(?:ls([12])\.gamma|gamma_([12]))', _LAYER + r'layer_scale_\2\3'),
        (r'(norm\..*|cls_token|pos_embed)', r'backbone.\1'),
        (r'head\.(weight|bias)', r'head.layers.head.\1'),
    ],
    'mmpretrain': [
        (r'(?:backbone\.)?(patch_embed\.projection\..*)', r'backbone.\1'),
        *mmpretrain_layers(r'layers\.(\d+)', _LAYER),
        (r'(?:backbone\.)?layers\.(\d+)\.attn\.gamma1\.weight', _LAYER + r'layer_scale_1'),
        (r'(?:backbone\.)?layers\.(\d+)\.ffn\.gamma2\.weight', _LAYER + r'layer_scale_2'),
        (r'(?:backbone\.)?ln1\.(.*)', r'backbone.norm.\1'),
        (r'(?:backbone\.)?(cls_token|pos_embed)', r'backbone.\1'),
    ],
}


def recognise(names: set[str]) -> str | None:
    """Return the layout of a set of parameter names, or ``None``."""
    if {'pos_embed', 'patch_embed.proj.weight', 'blocks.0.attn.qkv.weight'} <= names:
        return 'authors'
    bare = {name.removeprefix('backbone.') for name in names}
    if {'pos_embed', 'patch_embed.projection.weight', 'layers.0.ln1.weight'} <= bare:
        return 'mmpretrain'
    return None


def split_positions(state_dict: dict[str, Tensor], original: dict[str, Tensor]) -> None:
    """Reshape the position embedding to a grid, and add its first rows to the extra tokens they belong to.

    Only the sums "class token + its position" ever enter the network, so one parameter holds the sum.
    """
    table = state_dict['backbone.pos_embed']
    extra = sum(name.endswith(('cls_token', 'dist_token')) for name in original)
    side = math.isqrt(table.shape[1] - extra)
    if side * side != table.shape[1] - extra:
        raise ValueError(
            f'the position table has {table.shape[1] - extra} cells, which is no square: reshape it to '
            '(1, rows, columns, channels) before loading'
        )
    if 'backbone.cls_token' in state_dict:
        state_dict['backbone.cls_token'] = state_dict['backbone.cls_token'] + table[:, :1]
    state_dict['backbone.pos_embed'] = table[:, extra:].unflatten(1, (side, side))


def convert(state_dict: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Rename the parameters of a DeiT or ViT.

    Args:
        state_dict: a state dict of ``layout``.
        layout: what :func:`recognise` said.

    Returns:
        The state dict of a classifier with an ``STViT`` backbone; parameters it has no place for (a distillation
        token) keep their names.

    Raises:
        ValueError: the position table belongs to no square image.
    """
    converted = rename(state_dict, _RULES[layout])
    split_positions(converted, state_dict)
    return converted
