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
    """Return the plain vision transformer in a model, see :func:`find_transformer`."""
    return find_transformer(model)[1]


def find_transformer(model: nn.Module) -> tuple[nn.Module, Transformer | OwnTransformer]:
    """Return the plain vision transformer in a model, behind the module that it was found by.

    Raises:
        ValueError: there is none or more than one, or a part of it that the methods cannot serve.
    """
    found: dict[str, Transformer | OwnTransformer] = {}
    for name, module in model.named_modules():
        if not any(name.startswith(outer and f'{outer}.') for outer in found):
            finds = (library.find(module) for library in (own, timm, mmpretrain, mmseg, hugging_face))
            found.update((name, transformer) for transformer in finds if transformer is not None)
    if len(found) > 1:
        raise ValueError(
            f'{type(model).__name__} has {len(found)} vision transformers, {", ".join(found)}: reduce each by itself'
        )
    for name, transformer in found.items():
        if isinstance(transformer, Transformer):
            transformer.check_own_code()
        return model.get_submodule(name), transformer
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters(), *model.named_buffers())]
    reasons = {reason for part, reason in _UNSERVED.items() if any(part in name.lower() for name in names)}
    has = f'it has {" and ".join(sorted(reasons))}' if reasons else 'it has none of these'
    raise ValueError(
        f'{type(model).__name__} cannot be reduced, only a VisionTransformer of timm, mmpretrain or mmseg, an Eva of '
        f"timm, an STViT, and Hugging Face's ViT, DeiT, DINOv2, DINOv3, CLIP and SigLIP: {has}"
    )
