"""mmpretrain's VisionTransformer."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...functional.attention import split_heads
from ...functional.windows import Size
from ..steps import Network
from .base import BlockAdapter, Transformer, View, is_a, mlp_ratio


class MMPretrainBlock(BlockAdapter):
    """A ``TransformerEncoderLayer`` of mmpretrain's ``VisionTransformer``."""

    @property
    def attention_dropout(self) -> float:
        return self.block.attn.attn_drop

    def qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        attn = self.block.attn
        return split_heads(attn.qkv(self.block.ln1(x)), attn.num_heads)

    def attention_branch(self, out: Tensor) -> Tensor:
        attn = self.block.attn
        return attn.out_drop(attn.gamma1(attn.proj_drop(attn.proj(out))))

    def mlp(self, x: Tensor) -> Tensor:
        return self.block.ffn(self.block.ln2(x), identity=x)


class OpenMMLabView(View):
    """A ``VisionTransformer`` of mmpretrain or mmseg in one forward pass."""

    def patch_embed(self, image: Tensor) -> tuple[Tensor, Size]:
        """Embed the patches of images (B, channels, H, W): (B, N, C), and their grid."""
        x, self.grid = self.vit.patch_embed(image)
        return x, self.grid

    @property
    def layers(self) -> tuple[Callable[..., Any], ...]:
        return self.blocks_on_grid(self.vit.layers)


def find(vit: Any) -> Transformer | None:
    """Return the transformer that a module is, if it is one.

    Raises:
        ValueError: one that the methods cannot serve.
    """
    if not is_a(vit, 'mmpretrain.models.backbones.vision_transformer', 'VisionTransformer'):
        return None
    from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
    from mmpretrain.models.utils import MultiheadAttention

    for block in vit.layers:
        if type(block) is not TransformerEncoderLayer or type(block.attn) is not MultiheadAttention:
            raise ValueError(
                f'layers of the type {type(block).__name__} cannot be reduced, only TransformerEncoderLayer with '
                'MultiheadAttention'
            )
    width, grid = vit.embed_dims, tuple(vit.patch_resolution)
    blocks, ratio = list(vit.layers), mlp_ratio(vit.layers[0].ffn, width)
    network = Network(len(blocks), width, grid, vit.num_extra_tokens, ratio, vit.cls_token is not None)
    return Transformer(
        blocks,
        MMPretrainBlock,
        network,
        needs_all=vit.out_type == 'featmap',
        outputs=tuple(vit.out_indices),
        vit=vit,
        view=OpenMMLabView,
        methods=('forward',),
        pools=vit.out_type != 'cls_token',
        reads_patches=vit.out_type != 'cls_token',
    )
