"""Layouts of T2T-ViT checkpoints, of their authors and of mmpretrain."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .deit import split_positions
from .layout import Layout, Rules, mmpretrain_layers

_LAYER = r'backbone.encoder.layers.\1.'
_TOKENS = r'backbone.patch_embed.attention\1.'
_AUTHORS: Rules = [
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
]
_MMPRETRAIN: Rules = [
    *mmpretrain_layers(r'tokens_to_token\.attention(\d)', _TOKENS),
    *mmpretrain_layers(r'encoder\.(\d+)', _LAYER),
    (r'tokens_to_token\.project\.(.*)', r'backbone.patch_embed.projection.\1'),
    (r'(norm\..*|cls_token|pos_embed)', r'backbone.\1'),
    (r'head\.fc\.(weight|bias)', r'head.layers.head.\1'),
]


def _finish(state_dict: dict[str, Tensor], names: Iterable[str], grid: Sequence[int] | None) -> None:
    if any('.kqv.' in name for name in names):  # the performer's one projection is of key, query, value
        for name, value in state_dict.items():
            if name.startswith('backbone.patch_embed.attention') and '.qkv.' in name:
                key, query, rest = value.chunk(3)
                state_dict[name] = torch.cat((query, key, rest))
    split_positions(state_dict, grid)


LAYOUTS = (
    Layout(
        'T2T-ViT in the names of its authors',
        {'tokens_to_token.project.weight', 'blocks.0.attn.qkv.weight'},
        _AUTHORS,
        _finish,
    ),
    Layout(
        'T2T-ViT in the names of mmpretrain',
        {'tokens_to_token.project.weight', 'encoder.0.attn.qkv.weight'},
        _MMPRETRAIN,
        _finish,
    ),
)
