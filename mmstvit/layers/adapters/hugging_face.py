"""Vision models of Hugging Face's transformers: ViT, DeiT, DINOv2 with or without registers, DINOv3, CLIP, SigLIP."""

from functools import partial, reduce
from typing import Any, NamedTuple

import torch.nn as nn
from torch import Tensor

from ...functional.rotary import Rotary
from ..options import axes_of
from ..steps import Network
from .base import BlockAdapter, Transformer, is_a, mlp_ratio


class Parts(NamedTuple):
    """The names of a layer's submodules.

    Attributes:
        norm: before the attention.
        attention: with ``q_proj``, ``k_proj`` and ``v_proj``.
        branch: what the heads' outputs go through, until they are added to the tokens.
        mlp: what the tokens go through, until it is added to them.
    """

    norm: str
    attention: str
    branch: tuple[str, ...]
    mlp: tuple[str, ...]


VIT = Parts('layernorm_before', 'attention', ('attention.o_proj', 'dropout'), ('layernorm_after', 'mlp', 'dropout'))
DINOV2 = Parts(
    'norm1',
    'attention',
    ('attention.o_proj', 'layer_scale1', 'drop_path'),
    ('norm2', 'mlp', 'layer_scale2', 'drop_path'),
)
CLIP = Parts('layer_norm1', 'self_attn', ('self_attn.out_proj',), ('layer_norm2', 'mlp'))
LAYERS = {
    'ViTLayer': VIT,
    'DeiTLayer': VIT,
    'Dinov2Layer': DINOV2,
    'Dinov2WithRegistersLayer': DINOV2,
    'DINOv3ViTLayer': DINOV2,
    'CLIPEncoderLayer': CLIP,
    'SiglipEncoderLayer': CLIP,
}

# Classifiers of a mean of the patches, beside the class token or in its place; those that make an image of all patches;
# and those of class tokens alone.
POOLING = ('CLIPForImageClassification', 'Dinov2ForImageClassification', 'Dinov2WithRegistersForImageClassification')
MAPS = ('ViTForMaskedImageModeling', 'DeiTForMaskedImageModeling')
CLASS_TOKENS = ('ViTForImageClassification', 'DeiTForImageClassification', 'DeiTForImageClassificationWithTeacher')
# Ways of computing the same attention.
ATTENTION = ('eager', 'sdpa', 'flash_attention_2', 'flash_attention_3', 'flex_attention')


class HuggingFaceBlock(BlockAdapter):
    """A layer of a vision model of transformers.

    Args:
        parts: the names of its submodules.
        block: as of :class:`BlockAdapter`.
    """

    makes_masks = True
    positions = 'position_embeddings'

    def __init__(self, parts: Parts, block: nn.Module) -> None:
        super().__init__(block)
        self.parts = parts

    def _apply(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        return reduce(lambda x, name: self.block.get_submodule(name)(x), names, x)

    @property
    def attention(self) -> Any:
        return self.block.get_submodule(self.parts.attention)

    @property
    def scale(self) -> float:
        attn = self.attention
        return attn.scaling if hasattr(attn, 'scaling') else attn.scale

    @property
    def attention_dropout(self) -> float:
        attn = self.attention
        return attn.attention_dropout if hasattr(attn, 'attention_dropout') else attn.dropout

    def rotary(self, positions: tuple[Tensor, Tensor]) -> Rotary:
        cos, sin = positions  # of the patches (N, D)
        return Rotary(sin[None], cos[None], interleaved=False)

    def qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        attn, x = self.attention, self._apply((self.parts.norm,), x)
        heads = (project(x).unflatten(-1, (-1, attn.head_dim)) for project in (attn.q_proj, attn.k_proj, attn.v_proj))
        return tuple(x.transpose(1, 2) for x in heads)

    def attention_branch(self, out: Tensor) -> Tensor:
        return self._apply(self.parts.branch, out)

    def mlp(self, x: Tensor) -> Tensor:
        return x + self._apply(self.parts.mlp, x)


def find(model: Any) -> Transformer | None:
    """Return the vision transformer that a module of transformers is, if it is one.

    Raises:
        ValueError: one that the methods cannot serve.
    """
    pools, by_class, maps = (
        any(is_a(model, 'transformers', name) for name in names) for names in (POOLING, CLASS_TOKENS, MAPS)
    )
    if pools or by_class or maps:
        transformer = next(filter(None, map(find, model.children())))
        return transformer._replace(pools=pools, reads_patches=pools or maps, needs_all=maps)
    embeddings = getattr(model, 'embeddings', nn.Identity())
    patches = next((m for m in embeddings.modules() if isinstance(m, nn.Conv2d)), None)
    if patches is None or not is_a(model, 'transformers', 'PreTrainedModel'):
        return None
    layers = next((list(m) for m in model.modules() if isinstance(m, nn.ModuleList)), [])
    kinds = {type(layer).__name__ for layer in layers}
    if len(kinds) != 1 or not kinds <= set(LAYERS):
        raise ValueError(
            f'{type(model).__name__} has layers of the type {", ".join(sorted(kinds))}, which cannot be reduced, only '
            f'{", ".join(LAYERS)}'
        )
    parts, width, mlp = LAYERS[kinds.pop()], patches.out_channels, layers[0].get_submodule('mlp')
    if not hasattr(layers[0].get_submodule(parts.attention), 'q_proj'):
        raise ValueError(f'{type(model).__name__} is of a transformers before version 5: install a newer one')
    if model.config.output_attentions:
        raise ValueError('output_attentions=True does not go with token reduction, which computes no attention weights')
    if model.config._attn_implementation not in ATTENTION:
        raise ValueError(
            f'attn_implementation={model.config._attn_implementation!r} does not go with token reduction, which '
            f'computes the attention itself, as {" or ".join(ATTENTION)} do'
        )
    size = axes_of('image_size', model.config.image_size, 2)
    grid = tuple(pixels // patch for pixels, patch in zip(size, patches.kernel_size, strict=True))
    is_backbone = is_a(model, 'transformers', 'BackboneMixin')
    network = Network(len(layers), width, grid, _num_prefix(embeddings), mlp_ratio(mlp, width))
    return Transformer(
        layers,
        partial(HuggingFaceBlock, parts),
        network,
        needs_all=is_backbone,
        outputs=tuple(i - 1 for i in model.out_indices if i > 0) if is_backbone else (),
        pools=network.num_prefix == 0,
        stem=tuple(module for name, module in model.named_children() if name in ('embeddings', 'pre_layrnorm')),
        patch_size=patches.kernel_size,
    )


def _num_prefix(embeddings: nn.Module) -> int:
    """Return how many tokens stand before the patches."""
    single = ('cls_token', 'class_embedding', 'distillation_token')
    registers = getattr(embeddings, 'register_tokens', None)
    return sum(hasattr(embeddings, name) for name in single) + (0 if registers is None else registers.shape[1])
