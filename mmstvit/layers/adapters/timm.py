"""timm's VisionTransformer and Eva."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...functional.attention import split_heads
from ..steps import Network
from . import timm_eva
from .base import BlockAdapter, Transformer, View, is_a, mlp_ratio

MAPS = 'forward_intermediates'


class TimmBlock(BlockAdapter):
    """A ``Block`` of timm's ``VisionTransformer``, with or without LayerScale and normalised queries and keys."""

    @property
    def scale(self) -> float:
        return self.block.attn.scale

    @property
    def attention_dropout(self) -> float:
        return self.block.attn.attn_drop.p

    def qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        attn = self.block.attn
        q, k, v = split_heads(attn.qkv(self.block.norm1(x)), attn.num_heads)
        return attn.q_norm(q), attn.k_norm(k), v

    def attention_branch(self, out: Tensor) -> Tensor:
        attn = self.block.attn
        out = attn.proj_drop(attn.proj(attn.norm(out)))
        return self.block.drop_path1(self.block.ls1(out))

    def mlp(self, x: Tensor) -> Tensor:
        block = self.block
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


class Chain(tuple):
    """Blocks one by one, or called as one."""

    def __call__(self, x: Any) -> Any:
        """Let each take what the one before gives."""
        for block in self:
            x = block(x)
        return x


class TimmView(View):
    """A ``VisionTransformer`` or ``Eva`` of timm in one forward pass."""

    def _pos_embed(self, x: Tensor) -> Any:
        """Add positions and prefix tokens; patches are a grid (B, H, W, C) where images may be of any size."""
        self.grid = x.shape[1:3] if x.dim() == 4 else self.vit.patch_embed.grid_size
        return self.vit._pos_embed(x)

    def forward_features(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        """Run the library's own for its ``forward``, whose head reads no patches but to pool them."""
        self.reads_patches = self.vit.global_pool != 'token'
        return type(self.vit).forward_features(self, x, *args, **options)

    @property
    def blocks(self) -> Chain:
        return Chain(self.blocks_on_grid(self.vit.blocks))


def find(model: Any) -> Transformer | None:
    """Return the transformer that a module is, alone or as timm wraps it for maps, if it is one.

    Raises:
        ValueError: one that the methods cannot serve.
    """
    if is_a(model, 'timm.models._features', 'FeatureGetterNet'):
        return _find(model.model, tuple(model.out_indices))
    return _find(model)


def _find(vit: Any, outputs: Sequence[int] = ()) -> Transformer | None:
    """Return the transformer that a module is.

    Args:
        vit: the module.
        outputs: numbers of the blocks of which maps are wanted.
    """
    adapt: type[BlockAdapter]
    if is_a(vit, 'timm.models.eva', 'Eva'):
        timm_eva.check(vit)
        adapt = timm_eva.EvaBlock
    elif is_a(vit, 'timm.models.vision_transformer', 'VisionTransformer'):
        _check(vit)
        adapt = TimmBlock
    else:
        return None
    width, grid = vit.embed_dim, tuple(vit.patch_embed.grid_size)
    ratio = mlp_ratio(vit.blocks[0].mlp, width)
    runs_blocks = ['forward_features']
    if outputs:
        runs_blocks.append(MAPS)
    elif all(getattr(type(vit), name).__module__.startswith('timm.') for name in ('forward', 'forward_head')):
        runs_blocks.append('forward')
    return Transformer(
        list(vit.blocks),
        adapt,
        Network(len(vit.blocks), width, grid, vit.num_prefix_tokens, ratio, vit.cls_token is not None),
        needs_all=bool(outputs),
        outputs=outputs,
        vit=vit,
        view=TimmView,
        methods=tuple(runs_blocks),
        pools=vit.global_pool != 'token',
        unserved=() if outputs else ((MAPS, 'reduce timm.create_model(..., features_only=True), which gives maps'),),
    )


def _check(vit: Any) -> None:
    """Refuse what the methods cannot serve.

    Raises:
        ValueError: blocks are not timm's plain ones.
    """
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import Block

    for block in vit.blocks:
        attention = getattr(block, 'attn', None)
        if type(block) is not Block or type(attention) is not Attention or attention.gate is not None:
            raise ValueError(
                f'blocks of the type {type(block).__name__} with {type(attention).__name__} cannot be reduced, only '
                "timm's Block with its plain Attention"
            )
