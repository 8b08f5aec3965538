"""mmseg's VisionTransformer."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...functional.attention import split_heads
from ..steps import Network
from .base import BlockAdapter, Transformer, is_a, mlp_ratio
from .mmpretrain import OpenMMLabView


class MMSegBlock(BlockAdapter):
    """A ``TransformerEncoderLayer`` of mmseg's ``VisionTransformer``, whose attention is ``nn.MultiheadAttention``."""

    @property
    def attention_dropout(self) -> float:
        return self.block.attn.attn.dropout

    def qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        attn = self.block.attn.attn
        qkv = F.linear(self.block.norm1(x), attn.in_proj_weight, attn.in_proj_bias)
        return split_heads(qkv, attn.num_heads)

    def attention_branch(self, out: Tensor) -> Tensor:
        attn = self.block.attn
        return attn.dropout_layer(attn.proj_drop(attn.attn.out_proj(out)))

    def mlp(self, x: Tensor) -> Tensor:
        return self.block.ffn(self.block.norm2(x), identity=x)


def find(vit: Any) -> Transformer | None:
    """Return the transformer that a module is, if it is one.

    Raises:
        ValueError: one that the methods cannot serve.
    """
    if not is_a(vit, 'mmseg.models.backbones.vit', 'VisionTransformer'):
        return None
    from mmseg.models.backbones.vit import TransformerEncoderLayer

    blocks = list(vit.layers)
    for block in blocks:
        if type(block) is not TransformerEncoderLayer:
            raise ValueError(
                f'layers of the type {type(block).__name__} cannot be reduced, only TransformerEncoderLayer'
            )
    if vit.with_cp:
        raise ValueError('with_cp=True does not go with token reduction: leave it out')
    width, grid = vit.cls_token.shape[-1], tuple(side // vit.patch_size for side in vit.img_size)
    ratio, class_token = mlp_ratio(blocks[0].ffn, width), vit.with_cls_token
    network = Network(len(blocks), width, grid, int(class_token), ratio, class_token)
    outputs = tuple(vit.out_indices)
    return Transformer(blocks, MMSegBlock, network, True, outputs, vit, OpenMMLabView, ('forward',))
