"""Transformer blocks of timm and mmpretrain, called as :class:`.TransformerBlock` is."""

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..functional.reduction import compose
from .attention import AttentionLayout
from .encoder import Encoder
from .layout import WholeImage
from .steps import Network, SelfAttention, Step
from .tokens import Tokens


class BlockAdapter:
    """A pre-norm block of another library with the signature of :class:`.TransformerBlock`.

    Norms, projections, LayerScale, stochastic depth and MLP are those of the block; attention is computed here, with
    PyTorch's fused kernel, since the methods need its keys, queries and values and a bias on its logits.

    Args:
        block: it stays as it is.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise and project tokens (B, N, C) to queries, keys and values, each (B, heads, N, C / heads)."""
        raise NotImplementedError

    def attention_branch(self, out: Tensor) -> Tensor:
        """Project the heads' outputs (B, N, C) to what is added to the tokens."""
        raise NotImplementedError

    def mlp(self, x: Tensor) -> Tensor:
        """Update the tokens (B, N, C) by the block's MLP."""
        raise NotImplementedError

    @property
    def attention_dropout(self) -> float:
        """Dropout of the attention weights, in training."""
        raise NotImplementedError

    def __call__(
        self,
        x: Tensor,
        context: Sequence[Tensor] | None = None,
        layout: AttentionLayout | None = None,
        key_bias: Tensor | None = None,
        reduce: Callable[..., tuple[Tensor, Any]] | None = None,
    ) -> Any:
        """Self-attention, an optional reduction, MLP; see :meth:`.TransformerBlock.forward`."""
        q, k, v = self.qkv(x)
        bias = None if key_bias is None else key_bias[:, None, None].to(q.dtype)
        dropout = self.attention_dropout if self.block.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, bias, dropout)
        x = x + self.attention_branch(out.transpose(1, 2).flatten(2))
        if reduce is None:
            return self.mlp(x)
        x, kept = reduce(x, q, k, v)
        return self.mlp(x), kept


class TimmBlock(BlockAdapter):
    """A ``Block`` of timm's ``VisionTransformer``, with or without LayerScale and normalised queries and keys."""

    @property
    def attention_dropout(self) -> float:
        return self.block.attn.attn_drop.p

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attn = self.block.attn
        q, k, v = attn.qkv(self.block.norm1(x)).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return attn.q_norm(q), attn.k_norm(k), v

    def attention_branch(self, out: Tensor) -> Tensor:
        attn = self.block.attn
        out = attn.proj_drop(attn.proj(attn.norm(out)))
        return self.block.drop_path1(self.block.ls1(out))

    def mlp(self, x: Tensor) -> Tensor:
        block = self.block
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


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


class Transformer(NamedTuple):
    """A plain vision transformer of another library, whose blocks steps can run.

    Attributes:
        blocks: in order.
        adapt: makes an adapter of a block.
        network: their sizes; prefix tokens are class, distillation and register tokens.
        needs_all: whether the output has a place for each patch.
    """

    blocks: list[nn.Module]
    adapt: Callable[[nn.Module], BlockAdapter]
    network: Network
    needs_all: bool = False

    def check(self, steps: Sequence[Step]) -> None:
        """Refuse steps that the model cannot be run by.

        Raises:
            ValueError: they drop tokens of a map that has a place for each patch.
        """
        if self.needs_all and _loses_patches(steps):
            raise ValueError(
                "the model's output is a map with a place for each patch, and the method drops tokens: give "
                'fuse_last=True, or take a method that merges'
            )

    def run(self, steps: Sequence[Step]) -> None:
        """Let each block be run by a step, until :meth:`restore`."""
        finish = _keep if _loses_patches(steps) else _unmerge
        for block, step in zip(self.blocks, steps, strict=True):
            # An instance's own forward: a partial of a function can be copied, pickled and compiled.
            last = finish if block is self.blocks[-1] else None
            block.forward = partial(_forward, self.adapt(block), step, self.network, last)

    def restore(self) -> None:
        """Let the blocks run as they did before."""
        for block in self.blocks:
            vars(block).pop('forward', None)


class OwnTransformer(NamedTuple):
    """The encoder of an :class:`.STViT` that was built with ``reduce=None``; used as :class:`Transformer` is."""

    encoder: Encoder
    network: Network

    def check(self, steps: Sequence[Step]) -> None:
        """Accept all steps: the network knows what has become of its patches."""

    def run(self, steps: Sequence[Step]) -> None:
        self.encoder.steps = nn.ModuleList(steps)

    def restore(self) -> None:
        self.run([SelfAttention() for _ in self.encoder.layers])


def _loses_patches(steps: Sequence[Step]) -> bool:
    return any(step.loses_patches for step in steps)


def _forward(
    block: Callable,
    step: Step,
    network: Network,
    finish: Callable[[Tokens], Tensor] | None,
    x: Tensor | Tokens,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor | Tokens:
    """Run a block by its step. Between blocks goes all that is known of the tokens, in the place of a tensor."""
    if attn_mask is not None or is_causal:
        raise ValueError('attention masks do not go with token reduction: call restore_(model) first')
    if not isinstance(x, Tokens):
        grid, count = network.grid, x.shape[1] - network.num_prefix
        x = Tokens(x, WholeImage(grid if math.prod(grid) == count else (1, count), x.device, network.num_prefix))
    tokens = step(block, x)
    return tokens if finish is None else finish(tokens)


def _unmerge(tokens: Tokens) -> Tensor:
    """Give each patch the value of its token: heads that pool, and maps, need not know of the reduction."""
    return compose(tokens.trace).unmerge(tokens.x)


def _keep(tokens: Tokens) -> Tensor:
    """Leave the tokens as they are: patches that were dropped have no value."""
    return tokens.x


def transformer_of(model: nn.Module) -> Transformer | OwnTransformer:
    """Return the plain vision transformer in a model.

    Raises:
        ValueError: there is none, or a part of it that the methods cannot serve.
    """
    for module in model.modules():
        if isinstance(getattr(module, 'encoder', None), Encoder) and hasattr(module, 'pos_embed'):
            return _own(module)
        for library, find in (('timm.models.vision_transformer', _timm), ('mmpretrain.models.backbones', _mmpretrain)):
            # A model of a library that is not imported cannot be there.
            if library in sys.modules and isinstance(module, sys.modules[library].VisionTransformer):
                return find(module)
    raise ValueError(f'{type(model).__name__} has no VisionTransformer of timm or mmpretrain, and is no STViT')


def _own(vit: nn.Module) -> OwnTransformer:
    if not all(type(step) is SelfAttention for step in vit.encoder.steps):
        raise ValueError(f'{type(vit).__name__} reduces its tokens already: build it with reduce=None')
    grid, mlp = tuple(vit.pos_embed.shape[1:-1]), vit.encoder.layers[0].mlp
    ratio = mlp.fc1.out_features / vit.embed_dims
    class_token = vit.cls_token is not None
    network = Network(vit.num_layers, vit.embed_dims, grid, vit.num_prefix_tokens, ratio, class_token)
    return OwnTransformer(vit.encoder, network)


def _timm(vit: nn.Module) -> Transformer:
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import Block

    for block in vit.blocks:
        attention = getattr(block, 'attn', None)
        if type(block) is not Block or type(attention) is not Attention or attention.gate is not None:
            raise ValueError(
                f'blocks of the type {type(block).__name__} with {type(attention).__name__} cannot be reduced, only '
                "timm's Block with its plain Attention"
            )
    width, grid = vit.embed_dim, tuple(vit.patch_embed.grid_size)
    ratio = _mlp_ratio(vit.blocks[0].mlp, width)
    network = Network(len(vit.blocks), width, grid, vit.num_prefix_tokens, ratio, vit.cls_token is not None)
    return Transformer(list(vit.blocks), TimmBlock, network)


def _mmpretrain(vit: nn.Module) -> Transformer:
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
    network = Network(last + 1, width, grid, vit.num_extra_tokens, _mlp_ratio(vit.layers[0].ffn, width))
    return Transformer(list(vit.layers), MMPretrainBlock, network, needs_all=vit.out_type == 'featmap')


def _mlp_ratio(mlp: nn.Module, width: int) -> float:
    """Return the hidden width of an MLP of two equal products, by its weights: gated ones have a third."""
    return sum(weight.numel() for weight in mlp.parameters() if weight.dim() == 2) / (2 * width**2)
