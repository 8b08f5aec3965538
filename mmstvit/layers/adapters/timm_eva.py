"""timm's Eva: EVA-02, DINOv3, Perception Encoder and ViTs with rotary positions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.attention import split_heads
from ...functional.rotary import Rotary
from .base import BlockAdapter


class EvaBlock(BlockAdapter):
    """An ``EvaBlock`` of timm, with or without rotary positions."""

    positions = 'rope'

    @property
    def scale(self) -> float:
        return self.block.attn.scale

    @property
    def attention_dropout(self) -> float:
        return self.block.attn.attn_drop.p

    def rotary(self, positions: Tensor) -> Rotary:
        """Return the rotations of patches, whose sines and cosines are in a row (..., N, 2 D)."""
        sin, cos = positions.reshape(-1, *positions.shape[-2:]).chunk(2, dim=-1)
        return Rotary(sin, cos, interleaved=not self.block.attn.rotate_half)

    def qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        attn, x = self.block.attn, self.block.norm1(x)
        if attn.qkv is None:
            qkv = torch.cat((attn.q_proj(x), attn.k_proj(x), attn.v_proj(x)), dim=-1)
        elif getattr(attn, 'q_bias', None) is None:
            qkv = attn.qkv(x)
        else:
            qkv = F.linear(x, attn.qkv.weight, torch.cat((attn.q_bias, attn.k_bias, attn.v_bias)))
        q, k, v = split_heads(qkv, attn.num_heads)
        return attn.q_norm(q), attn.k_norm(k), v

    def attention_branch(self, out: Tensor) -> Tensor:
        block, attn = self.block, self.block.attn
        return block.drop_path1(_scale(block.gamma_1, attn.proj_drop(attn.proj(attn.norm(out)))))

    def mlp(self, x: Tensor) -> Tensor:
        block = self.block
        return x + block.drop_path2(_scale(block.gamma_2, block.mlp(block.norm2(x))))


def _scale(gamma: Tensor | None, x: Tensor) -> Tensor:
    return x if gamma is None else gamma * x


def check(vit: Any) -> None:
    """Refuse what the methods cannot serve.

    Raises:
        ValueError: rotations differ between layers, or blocks are not pre-norm blocks with plain attention.
    """
    from timm.models.eva import EvaBlock as Block

    if vit.rope_mixed:
        raise ValueError('rotary positions that each layer learns for itself cannot be reduced')
    for block in vit.blocks:
        attention = getattr(block, 'attn', None)
        if type(block) is not Block or attention.gate is not None or getattr(attention, 'num_kv_groups', 1) > 1:
            raise ValueError(
                f'blocks of the type {type(block).__name__} with post-norm, gates or grouped queries cannot be '
                "reduced, only timm's EvaBlock with plain attention"
            )
