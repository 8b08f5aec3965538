"""Transformers whose blocks steps can run: one file a library."""

import torch.nn as nn

from . import hugging_face, mmpretrain, mmseg, own, timm
from .base import Transformer
from .own import OwnTransformer

# What names of modules and parameters say of a model that is not plain.
_UNSERVED = {
    'relative_position': 'relative position bias',
    'rel_pos': 'relative position bias',
    'rope': 'rotary positions',
    'window': 'windows',
    'downsample': 'stages',
}


def transformer_of(model: nn.Module) -> Transformer | OwnTransformer:
    """Return the plain vision transformer in a model.

    Raises:
        ValueError: there is none, or a part of it that the methods cannot serve.
    """
    for module in model.modules():
        for library in (own, timm, mmpretrain, mmseg, hugging_face):
            if (transformer := library.find(module)) is not None:
                return transformer
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters(), *model.named_buffers())]
    reasons = {reason for part, reason in _UNSERVED.items() if any(part in name.lower() for name in names)}
    has = f'it has {" and ".join(sorted(reasons))}' if reasons else 'it has none of these'
    raise ValueError(
        f'{type(model).__name__} cannot be reduced, only a VisionTransformer of timm, mmpretrain or mmseg, an Eva of '
        f"timm, an STViT, and Hugging Face's ViT, DeiT, DINOv2, DINOv3, CLIP and SigLIP: {has}"
    )
