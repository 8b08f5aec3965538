"""mmpretrain's VisionTransformer."""

import torch.nn as nn
from torch import Tensor

from ..steps import Network
from .base import BlockAdapter, Transformer, is_a, mlp_ratio


class MMPretrainBlock(BlockAdapter):
    """A ``TransformerEncoderLayer`` of mmpretrain's ``VisionTransformer``."""

    @property
    def attention_dropout(self) -> float:
        return self.block.attn.attn_drop

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attn = self.block.attn
        return attn.qkv(self.block.ln1(x)).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def attention_branch(self, out: Tensor) -> Tensor:
        attn = self.block.attn
        return attn.out_drop(attn.gamma1(attn.proj_drop(attn.proj(out))))

    def mlp(self, x: Tensor) -> Tensor:
        return self.block.ffn(self.block.ln2(x), identity=x)


def find(vit: nn.Module) -> Transformer | None:
    """Return the transformer that a module is, if it is one.

    Raises:
        ValueError: one that the methods cannot serve.
    """
    if not is_a(vit, 'mmpretrain.models.backbones.vision_transformer', 'VisionTransformer'):
        return None
    from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
    from mmpretrain.models.utils import MultiheadAttention

    last = len(vit.layers) - 1
    if tuple(vit.out_indices) != (last,):
        raise ValueError(f'out_indices={tuple(vit.out_indices)}: only the last layer, {last}, can be asked for')
    for block in vit.layers:
        if type(block) is not TransformerEncoderLayer or type(block.attn) is not MultiheadAttention:
            raise ValueError(
                f'layers of the type {type(block).__name__} cannot be reduced, only TransformerEncoderLayer with '
                'MultiheadAttention'
            )
    width, grid = vit.embed_dims, tuple(vit.patch_resolution)
    network = Network(last + 1, width, grid, vit.num_extra_tokens, mlp_ratio(vit.layers[0].ffn, width))
    return Transformer(list(vit.layers), MMPretrainBlock, network, needs_all=vit.out_type == 'featmap')
