"""Converter of ViT, DeiT and DINOv2 checkpoints in the names of Hugging Face's transformers."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from .deit import split_positions
from .rename import rename

DESCRIPTIONS = {'transformers': "ViT, DeiT or DINOv2 in the names of Hugging Face's transformers"}

_MODEL = r'(?:(?:vit|deit|dinov2|dinov2_with_registers)\.)?'
# Files have `encoder.layer`; since version 5 the modules of ViT and DeiT have `layers`.
_OLD = _MODEL + r'(?:encoder\.layer|layers)\.(\d+)\.'
_LAYER = r'backbone.encoder.layers.\1.'
_RULES = [
    (_MODEL + r'embeddings\.patch_embeddings\.projection\.(.*)', r'backbone.patch_embed.projection.\1'),
    (_MODEL + r'embeddings\.(cls_token|register_tokens)', r'backbone.\1'),
    (_MODEL + r'embeddings\.distillation_token', r'backbone.dist_token'),
    (_MODEL + r'embeddings\.position_embeddings', r'backbone.pos_embed'),
    (_OLD + r'attention\.(?:attention\.)?([qkv])(?:_proj|[a-z]+)\.(weight|bias)', _LAYER + r'attn.\2.\3'),
    (_OLD + r'attention\.(?:output\.dense|o_proj)\.(.*)', _LAYER + r'attn.proj.\2'),
    (_OLD + r'(?:layernorm_before|norm1)\.(.*)', _LAYER + r'norm1.\2'),
    (_OLD + r'(?:layernorm_after|norm2)\.(.*)', _LAYER + r'norm2.\2'),
    (_OLD + r'(?:intermediate\.dense|mlp\.fc1)\.(.*)', _LAYER + r'mlp.fc1.\2'),
    (_OLD + r'(?:output\.dense|mlp\.fc2)\.(.*)', _LAYER + r'mlp.fc2.\2'),
    (_OLD + r'layer_scale([12])\.lambda1', _LAYER + r'layer_scale_\2'),
    (_OLD + r'(.*)', _LAYER + r'\2'),
    (_MODEL + r'layernorm\.(.*)', r'backbone.norm.\1'),
    (r'(?:cls_)?classifier\.(weight|bias)', r'head.layers.head.\1'),
]


def recognise(names: set[str]) -> str | None:
    """Return the layout of a set of parameter names, or ``None``."""
    bare = {re.sub(f'^{_MODEL}', '', name) for name in names}
    wanted = ('cls_token', 'position_embeddings', 'patch_embeddings.projection.weight')
    return 'transformers' if {f'embeddings.{name}' for name in wanted} <= bare else None


def _join_projections(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fuse the projections of query, key and value to ``qkv``."""
    joined = dict(state_dict)
    for name in state_dict:
        parts = [name.replace('.attn.q.', f'.attn.{part}.') for part in 'qkv']
        if '.attn.q.' in name and all(part in joined for part in parts):
            joined[name.replace('.attn.q.', '.attn.qkv.')] = torch.cat([joined.pop(part) for part in parts])
    return joined


def convert(state_dict: dict[str, Tensor], layout: str, grid: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Rename the parameters of a ``ViTModel``, ``DeiTModel``, ``Dinov2Model`` or one with a head on it.

    Args:
        state_dict: a state dict of ``layout``.
        layout: what :func:`recognise` said.
        grid: cells of the network's position table along each axis, where it is known.

    Returns:
        The state dict of a classifier with an ``STViT`` backbone; parameters it has no place for keep their names.

    Raises:
        ValueError: the position table belongs to no square image, nor to one of ``grid``.
    """
    converted = _join_projections(rename(state_dict, _RULES))
    split_positions(converted, grid)
    return converted
