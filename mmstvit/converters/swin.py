"""Converter of Swin and STViT-R checkpoints, in the layouts of their authors and of mmpretrain."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .rename import rename

DESCRIPTIONS = {
    'stvit-r': 'STViT-R in the names of its authors',
    'authors': 'Swin in the names of its authors',
    'mmpretrain': 'Swin in the names of mmpretrain, mmdet and mmseg',
}

_LAYER = r'backbone.stages.\1.encoder.layers.\2.'
_RULES = {
    # Swin's authors, and on the same ground those of STViT-R; detection files have ``backbone.`` before each name.
    'authors': [
        (r'(?:backbone\.)?.*\.(?:relative_position_index|attn_mask)', None),
        (r'(?:backbone\.)?patch_embed\.proj\.(weight|bias)', r'backbone.patch_embed.projection.\1'),
        (r'(?:backbone\.)?(patch_embed\.norm\..*)', r'backbone.\1'),
        (r'(?:backbone\.)?patch_embed\.proj\.0\.c\.(.*)', r'backbone.patch_embed.layers.0.\1'),
        (r'(?:backbone\.)?patch_embed\.proj\.0\.bn\.(.*)', r'backbone.patch_embed.layers.1.\1'),
        (r'(?:backbone\.)?patch_embed\.proj\.2\.c\.(.*)', r'backbone.patch_embed.layers.3.\1'),
        (r'(?:backbone\.)?patch_embed\.proj\.2\.bn\.(.*)', r'backbone.patch_embed.layers.4.\1'),
        (
            r'(?:backbone\.)?layers\.(\d+)\.blocks\.(\d+)\.conv_pos\.(.*)',
            r'backbone.stages.\1.encoder.steps.\2.conv.\3',
        ),
        (r'(?:backbone\.)?layers\.(\d+)\.blocks\.(\d+)\.(.*)', _LAYER + r'\3'),
        (r'(?:backbone\.)?layers\.(\d+)\.(downsample\..*)', r'backbone.stages.\1.\2'),
        (r'(?:backbone\.)?layers\.(\d+)\.semantic_token2', r'backbone.stages.\1.encoder.steps.2.global_centers'),
        (r'(?:backbone\.)?(norm\d\..*)', r'backbone.\1'),
        (r'norm\.(weight|bias)', r'backbone.norm3.\1'),
        (r'head\.(weight|bias)', r'head.fc.\1'),
    ],
    'mmpretrain': [
        (r'.*\.relative_position_index', None),
        (r'(?:backbone\.)?stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.(.*)', _LAYER + r'attn.\3'),
        (r'(?:backbone\.)?stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.(.*)', _LAYER + r'mlp.fc1.\3'),
        (r'(?:backbone\.)?stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.(.*)', _LAYER + r'mlp.fc2.\3'),
        (r'(?:backbone\.)?stages\.(\d+)\.blocks\.(\d+)\.(norm.*)', _LAYER + r'\3'),
        (r'(?:backbone\.)?((?:patch_embed|stages|norm\d).*)', r'backbone.\1'),
    ],
}


def recognise(names: set[str]) -> str | None:
    """Return the layout of a set of parameter names, or ``None``."""
    bare = {name.removeprefix('backbone.') for name in names}
    if {'layers.0.blocks.0.attn.qkv.weight', 'layers.0.downsample.reduction.weight'} <= bare:
        return 'stvit-r' if 'layers.2.blocks.1.attn.kv.weight' in bare else 'authors'
    if {'stages.0.blocks.0.attn.w_msa.qkv.weight', 'stages.0.downsample.reduction.weight'} <= bare:
        return 'mmpretrain'
    return None


def _join_projections(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fuse STViT-R's separate ``q`` and ``kv`` projections to ``qkv``."""
    joined = {}
    for name, value in state_dict.items():
        if '.attn.kv.' in name:
            continue
        if '.attn.q.' in name:
            value = torch.cat((value, state_dict[name.replace('.attn.q.', '.attn.kv.')]))
            name = name.replace('.attn.q.', '.attn.qkv.')
        joined[name] = value
    return joined


def _merging_order(value: Tensor) -> Tensor:
    """Reorder patch merging weights from (channel, row, column) of OpenMMLab to (column, row, channel) of Swin."""
    return value.unflatten(-1, (-1, 2, 2)).movedim(-3, -1).transpose(-3, -2).flatten(-3)


def convert(state_dict: dict[str, Tensor], layout: str, grid: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Convert the parameters of a Swin or STViT-R.

    Args:
        state_dict: a state dict of ``layout``.
        layout: what :func:`recognise` said.
        grid: of a network with a position table, which this is not.

    Returns:
        The state dict of a classifier or detector with an ``STViTSwin`` or ``STViTR`` backbone; necks and heads of a
        detector keep their names.
    """
    # The names of STViT-R are Swin's and more.
    converted = rename(state_dict, _RULES['authors' if layout == 'stvit-r' else layout])
    if layout == 'mmpretrain':
        return {name: _merging_order(v) if '.downsample.' in name else v for name, v in converted.items()}
    converted = _join_projections(converted)
    for name, value in converted.items():
        if name.endswith('global_centers') and value.dim() == 3:
            side = math.isqrt(value.shape[1])
            converted[name] = value.unflatten(1, (side, side))
    return converted
