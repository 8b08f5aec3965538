"""Converter of DeiT and ViT checkpoints, in the layouts of timm and mmpretrain."""

import logging
import math
from collections.abc import Iterable, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor

from .layout import Layout, Rules, mmpretrain_layers

_LAYER = r'backbone.encoder.layers.\1.'
_AUTHORS: Rules = [
    (r'patch_embed\.proj\.(.*)', r'backbone.patch_embed.projection.\1'),
    (r'blocks\.(\d+)\.(?:ls([12])\.gamma|gamma_([12]))', _LAYER + r'layer_scale_\2\3'),
    (r'blocks\.(\d+)\.(.*)', _LAYER + r'\2'),  # what a layer has and ours may lack keeps its name in it
    (r'((?:norm|norm_pre|fc_norm)\..*|cls_token|dist_token|pos_embed)', r'backbone.\1'),
    (r'(?:reg_token|register_tokens)', r'backbone.register_tokens'),
    (r'head\.(weight|bias)', r'head.layers.head.\1'),
]
_MMPRETRAIN: Rules = [
    (r'(patch_embed\.projection\..*)', r'backbone.\1'),
    *mmpretrain_layers(r'layers\.(\d+)', _LAYER),
    (r'layers\.(\d+)\.attn\.gamma1\.weight', _LAYER + r'layer_scale_1'),
    (r'layers\.(\d+)\.ffn\.gamma2\.weight', _LAYER + r'layer_scale_2'),
    (r'layers\.(\d+)\.(.*)', _LAYER + r'\2'),
    (r'ln1\.(.*)', r'backbone.norm.\1'),
    (r'pre_norm\.(.*)', r'backbone.norm_pre.\1'),
    (r'ln2\.(.*)', r'backbone.fc_norm.\1'),
    (r'(cls_token|dist_token|pos_embed)', r'backbone.\1'),
]


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
        n, cells = splits.popitem()
        if grid is not None and cells != tuple(grid) and math.prod(grid) == rows - n:
            axes, own = (' x '.join(map(str, size)) for size in (cells, grid))
            print_log(
                f'the position table is taken for one of {axes} cells, and interpolated to {own}: if it is of {own}, '
                'reshape it to (1, rows, columns, channels) before loading',
                'current',
                logging.WARNING,
            )
        return n, cells
    what = f'{rows - extra} cells, which is no square'
    if splits:
        what = ' or '.join(f'{r} x {c} cells and {n} more rows' for n, (r, c) in splits.items())
    raise ValueError(f'the position table has {what}: reshape it to (1, rows, columns, channels) before loading')


def join_tokens(state_dict: dict[str, Tensor], prefix: str = 'backbone.') -> None:
    """Join the distillation token, which is one more token at the front, with the registers, in place."""
    dist, registers = prefix + 'dist_token', prefix + 'register_tokens'
    if dist in state_dict:
        state_dict[registers] = torch.cat([state_dict.pop(name) for name in (dist, registers) if name in state_dict], 1)


def _finish(state_dict: dict[str, Tensor], names: Iterable[str], grid: Sequence[int] | None) -> None:
    # timm has positions for its registers, or none for any token; DINOv2's authors add registers after positions.
    split_positions(state_dict, grid, with_registers=any(name.endswith('reg_token') for name in names))


LAYOUTS = (
    Layout(
        'DeiT or ViT in the names of its authors and of timm',
        {'pos_embed', 'patch_embed.proj.weight', 'blocks.0.norm1.weight'},
        _AUTHORS,
        _finish,
    ),
    Layout(
        'DeiT or ViT in the names of mmpretrain',
        {'pos_embed', 'patch_embed.projection.weight', 'layers.0.ln1.weight'},
        _MMPRETRAIN,
        _finish,
    ),
)
