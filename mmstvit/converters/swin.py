"""Layouts of Swin and STViT-R checkpoints, of their authors and of mmpretrain."""

import math
from collections.abc import Iterable, Sequence

from torch import Tensor

from .layout import Layout, Rules, join_projections

_LAYER = r'backbone.stages.\1.encoder.layers.\2.'
# Swin's authors, and on the same ground those of STViT-R.
_AUTHORS: Rules = [
    (r'.*\.(?:relative_position_index|attn_mask)', None),
    (r'patch_embed\.proj\.(weight|bias)', r'backbone.patch_embed.projection.\1'),
    (r'(patch_embed\.norm\..*)', r'backbone.\1'),
    (r'patch_embed\.proj\.0\.c\.(.*)', r'backbone.patch_embed.layers.0.\1'),
    (r'patch_embed\.proj\.0\.bn\.(.*)', r'backbone.patch_embed.layers.1.\1'),
    (r'patch_embed\.proj\.2\.c\.(.*)', r'backbone.patch_embed.layers.3.\1'),
    (r'patch_embed\.proj\.2\.bn\.(.*)', r'backbone.patch_embed.layers.4.\1'),
    (r'layers\.(\d+)\.blocks\.(\d+)\.conv_pos\.(.*)', r'backbone.stages.\1.encoder.steps.\2.conv.\3'),
    (r'layers\.(\d+)\.blocks\.(\d+)\.(.*)', _LAYER + r'\3'),
    (r'layers\.(\d+)\.(downsample\..*)', r'backbone.stages.\1.\2'),
    (r'layers\.(\d+)\.semantic_token2', r'backbone.stages.\1.encoder.steps.2.global_centers'),
    (r'(norm\d\..*)', r'backbone.\1'),
    (r'norm\.(weight|bias)', r'backbone.norm3.\1'),
    (r'head\.(weight|bias)', r'head.fc.\1'),
]
_MMPRETRAIN: Rules = [
    (r'.*\.relative_position_index', None),
    (r'stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.(.*)', _LAYER + r'attn.\3'),
    (r'stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.(.*)', _LAYER + r'mlp.fc1.\3'),
    (r'stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.(.*)', _LAYER + r'mlp.fc2.\3'),
    (r'stages\.(\d+)\.blocks\.(\d+)\.(norm.*)', _LAYER + r'\3'),
    (r'((?:patch_embed|stages|norm\d).*)', r'backbone.\1'),
]


def _finish_authors(state_dict: dict[str, Tensor], names: Iterable[str], grid: Sequence[int] | None) -> None:
    join_projections(state_dict, ('q', 'kv'))
    for name, value in state_dict.items():
        if name.endswith('global_centers') and value.dim() == 3:
            side = math.isqrt(value.shape[1])
            state_dict[name] = value.unflatten(1, (side, side))


def _finish_mmpretrain(state_dict: dict[str, Tensor], names: Iterable[str], grid: Sequence[int] | None) -> None:
    # Patch merging joins channels as (channel, row, column) in OpenMMLab and as (column, row, channel) in Swin.
    for name, value in state_dict.items():
        if '.downsample.' in name:
            state_dict[name] = value.unflatten(-1, (-1, 2, 2)).movedim(-3, -1).transpose(-3, -2).flatten(-3)


_MARKS = {'layers.0.blocks.0.attn.qkv.weight', 'layers.0.downsample.reduction.weight'}
LAYOUTS = (
    Layout(
        'STViT-R in the names of its authors', _MARKS | {'layers.2.blocks.1.attn.kv.weight'}, _AUTHORS, _finish_authors
    ),
    Layout('Swin in the names of its authors', _MARKS, _AUTHORS, _finish_authors),
    Layout(
        'Swin in the names of mmpretrain, mmdet and mmseg',
        {'stages.0.blocks.0.attn.w_msa.qkv.weight', 'stages.0.downsample.reduction.weight'},
        _MMPRETRAIN,
        _finish_mmpretrain,
    ),
)
