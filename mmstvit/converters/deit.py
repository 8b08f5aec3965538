"""Converter of DeiT and ViT checkpoints, in the layouts of timm and mmpretrain."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .rename import mmpretrain_layers, rename

DESCRIPTIONS = {
    'authors': 'DeiT or ViT in the names of its authors and of timm',
    'mmpretrain': 'DeiT or ViT in the names of mmpretrain',
}

# Old name -> new name, tried in order; the result is a classifier's state dict (``backbone.*`` and ``head.*``). What a
# layer has and ours may lack keeps its name in it.
_LAYER = r'backbone.encoder.layers.\1.'
_RULES = {
    'authors': [
        (r'(?:backbone\.)?patch_embed\.proj\.(.*)', r'backbone.patch_embed.projection.\1'),
        (r'(?:backbone\.)?blocks\.(\d+)\.(?:ls([12])\.gamma|gamma_([12]))', _LAYER + r'layer_scale_\2\3'),
        (r'(?:backbone\.)?blocks\.(\d+)\.(.*)', _LAYER + r'\2'),
        (r'(?:backbone\.)?((?:norm|norm_pre|fc_norm)\..*|cls_token|dist_token|pos_embed)', r'backbone.\1'),
        (r'(?:backbone\.)?(?:reg_token|register_tokens)', r'backbone.register_tokens'),
        (r'head\.(weight|bias)', r'head.layers.head.\1'),
    ],
    'mmpretrain': [
        (r'(?:backbone\.)?(patch_embed\.projection\..*)', r'backbone.\1'),
        *mmpretrain_layers(r'layers\.(\d+)', _LAYER),
        (r'(?:backbone\.)?layers\.(\d+)\.attn\.gamma1\.weight', _LAYER + r'layer_scale_1'),
        (r'(?:backbone\.)?layers\.(\d+)\.ffn\.gamma2\.weight', _LAYER + r'layer_scale_2'),
        (r'(?:backbone\.)?layers\.(\d+)\.(.*)', _LAYER + r'\2'),
        (r'(?:backbone\.)?ln1\.(.*)', r'backbone.norm.\1'),
        (r'(?:backbone\.)?pre_norm\.(.*)', r'backbone.norm_pre.\1'),
        (r'(?:backbone\.)?ln2\.(.*)', r'backbone.fc_norm.\1'),
        (r'(?:backbone\.)?(cls_token|dist_token|pos_embed)', r'backbone.\1'),
    ],
}


def recognise(names: set[str]) -> str | None:
    """Return the layout of a set of parameter names, or ``None``."""
    bare = {name.removeprefix('backbone.') for name in names}
    if {'pos_embed', 'patch_embed.proj.weight', 'blocks.0.norm1.weight'} <= bare:
        return 'authors'
    if {'pos_embed', 'patch_embed.projection.weight', 'layers.0.ln1.weight'} <= bare:
        return 'mmpretrain'
    return None


def split_positions(
    state_dict: dict[str, Tensor], grid: Sequence[int] | None = None, with_registers: bool = False
) -> None:
    """Reshape the position embedding to a grid, and add its first rows to the extra tokens they belong to.

    Only the sums "class token + its position" ever enter the network, so one parameter holds the sum. A table has rows
    for all extra tokens or for none (DeiT III), which its length tells.

    Args:
        state_dict: in our names; changed in place.
        grid: cells along each axis that the network has, which tables of no square may have too.
        with_registers: whether registers are among the tokens that a table may have rows for.

    Raises:
        ValueError: the cells are of no square and not those of ``grid``.
    """
    table = state_dict['backbone.pos_embed']
    if table.dim() > 3:
        return  # a grid already
    names = ('cls_token', 'dist_token', *(['register_tokens'] if with_registers else []))
    tokens = [f'backbone.{name}' for name in names if f'backbone.{name}' in state_dict]
    extra, cells = _split(table.shape[1], sum(state_dict[name].shape[1] for name in tokens), grid)
    positions = table[:, :extra]
    for name in tokens if extra else ():
        own, positions = positions.tensor_split([state_dict[name].shape[1]], dim=1)
        state_dict[name] = state_dict[name] + own
    state_dict['backbone.pos_embed'] = table[:, extra:].unflatten(1, cells)


def _split(rows: int, extra: int, grid: Sequence[int] | None) -> tuple[int, tuple[int, ...]]:
    """Return how many rows of a table belong to extra tokens, all of ``extra`` or none, and the grid of the others."""
    splits: dict[int, tuple[int, ...]] = {}
    for n in {extra, 0}:
        side = math.isqrt(max(rows - n, 0))
        if side and side**2 == rows - n:
            splits[n] = (side, side)
        elif grid is not None and rows - n == math.prod(grid):
            splits[n] = tuple(grid)
    if len(splits) == 1:
        return splits.popitem()
    what = f'{rows - extra} cells, which is no square'
    if splits:
        what = ' or '.join(f'{r} x {c} cells and {n} more rows' for n, (r, c) in splits.items())
    raise ValueError(f'the position table has {what}: reshape it to (1, rows, columns, channels) before loading')


def join_tokens(state_dict: dict[str, Tensor], prefix: str = 'backbone.') -> None:
    """Join the distillation token, which is one more token at the front, with the registers, in place."""
    dist, registers = prefix + 'dist_token', prefix + 'register_tokens'
    if dist in state_dict:
        state_dict[registers] = torch.cat([state_dict.pop(name) for name in (dist, registers) if name in state_dict], 1)


def convert(state_dict: dict[str, Tensor], layout: str, grid: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Rename the parameters of a DeiT or ViT.

    Args:
        state_dict: a state dict of ``layout``.
        layout: what :func:`recognise` said.
        grid: cells of the network's position table along each axis, where it is known.

    Returns:
        The state dict of a classifier with an ``STViT`` backbone; parameters it has no place for keep their names.

    Raises:
        ValueError: the position table belongs to no square image, nor to one of ``grid``.
    """
    converted = rename(state_dict, _RULES[layout])
    # timm has positions for its registers, or none for any token; DINOv2's authors add registers after positions.
    split_positions(converted, grid, with_registers=any(name.endswith('reg_token') for name in state_dict))
    return converted
