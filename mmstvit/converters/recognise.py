"""Recognition of a checkpoint by its parameter names and shapes."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from . import deit, huggingface, swin, t2t
from .inflate import table_grid
from .layout import Layout, bare

LAYOUTS = (*deit.LAYOUTS, *huggingface.LAYOUTS, *swin.LAYOUTS, *t2t.LAYOUTS)

# Of networks that are often met and never fit: a name that the network alone has.
_OTHERS = (
    (r'(backbone\.)?layer1\.0\.conv1\.weight', 'a ResNet'),
    (
        r'(backbone\.)?(downsample_layers\.0\.0|features\.0\.0|stages\.0\.0\.depthwise_conv|stem\.0)\.weight',
        'a ConvNet',
    ),
    (r'(backbone\.)?patch_embed1\.proj\.weight', 'a PVT'),
    (r'(visual\.|vision_model\.|backbone\.vision_model\.|text_model\.).*', 'a CLIP'),
    (r'(\w+\.)?(embeddings|encoder\.layer)\..*', "a model in the names of Hugging Face's transformers"),
    (r'(backbone\.)?(patch_embed\.proj|layers\.0\.blocks\.0\.attn\.(proj|qkv))\.weight', 'a vision transformer'),
    (r'.*encoder\.layers\.\d+\.norm1\.weight', 'a network of mmstvit of another kind'),
)


def recognise(names: Iterable[str]) -> Layout | None:
    """Return the layout of a checkpoint by its parameter names, or ``None``."""
    present = set(map(bare, names))
    return next((layout for layout in LAYOUTS if layout.marks <= present), None)


def looks_like(names: Iterable[str]) -> str:
    """Describe an unsupported checkpoint, completing "it looks like"."""
    names = list(names)
    if layout := recognise(names):
        return layout.description
    for pattern, what in _OTHERS:
        if any(re.fullmatch(pattern, name) for name in names):
            return what
    return 'nothing that mmstvit knows'


def backbone_of(state_dict: Mapping[str, Tensor]) -> dict:
    """Return the backbone config that a converted checkpoint fits.

    Sizes that leave no trace in the weights (the number of semantic tokens, where they begin, heads of a network
    without a relative position bias) have their defaults.

    Args:
        state_dict: what :func:`mmstvit.convert_published_state_dict` gave.

    Raises:
        ValueError: tensors that tell a size are missing.
    """
    names = {name.removeprefix('backbone.'): value for name, value in state_dict.items()}
    try:
        return _hierarchical(names) if any(name.startswith('stages.') for name in names) else _isotropic(names)
    except KeyError as error:
        raise ValueError(f'the file is incomplete: it has no {error.args[0]}') from None


def _count(names: Iterable[str], pattern: str) -> int:
    """Return one more than the largest number that the group of ``pattern`` matches."""
    return 1 + max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1)


def _isotropic(names: dict[str, Tensor]) -> dict:
    width = names['norm.weight'].numel()
    arch = dict(
        embed_dims=width,
        num_layers=_count(names, r'encoder\.layers\.(\d+)\.'),
        num_heads=max(width // 64, 1),
        feedforward_channels=names['encoder.layers.0.mlp.fc1.weight'].shape[0],
    )
    cells = names['pos_embed'].shape[1:-1]
    if 'patch_embed.attention1.norm1.weight' in names:
        return dict(
            type='mmstvit.T2TViT',
            arch=arch,
            img_size=tuple(16 * n for n in cells),
            in_channels=names['patch_embed.attention1.norm1.weight'].numel() // 49,
            t2t_type='performer' if 'patch_embed.attention1.attn.features' in names else 'transformer',
            token_dims=names['patch_embed.attention1.norm2.weight'].numel(),
        )
    kernel = names['patch_embed.projection.weight']
    return dict(
        type='mmstvit.STViT',
        arch=arch,
        img_size=tuple(kernel.shape[-1] * n for n in cells),
        patch_size=kernel.shape[-1],
        in_channels=kernel.shape[1],
        semantic_grid=None,
        with_cls_token='cls_token' in names,
        qkv_bias='encoder.layers.0.attn.qkv.bias' in names,
        layer_scale_init_value=0.0,
        **parts_of(names),
    )


def parts_of(names: Mapping[str, Tensor]) -> dict:
    """Return the options of :class:`.STViT` for parts that a ViT may have.

    Args:
        names: tensors of a converted backbone by name, with or without ``backbone.``.
    """
    names = {name.removeprefix('backbone.'): value for name, value in names.items()}
    registers = sum(names[name].shape[1] for name in ('dist_token', 'register_tokens') if name in names)
    options: dict[str, Any] = dict(num_register_tokens=registers) if registers else {}
    if 'encoder.layers.0.attn.q_norm.weight' in names:
        options['qk_norm'] = True
    if 'encoder.layers.0.layer_scale_1' in names:
        options['layer_scale_init_value'] = 1e-5
    return options


def _hierarchical(names: dict[str, Tensor]) -> dict:
    depths = tuple(
        _count(names, rf'stages\.{i}\.encoder\.layers\.(\d+)\.') for i in range(_count(names, r'stages\.(\d+)\.'))
    )
    tables = [names[f'stages.{i}.encoder.layers.0.attn.relative_position_bias_table'] for i in range(len(depths))]
    width = names['stages.0.encoder.layers.0.norm1.weight'].numel()
    offsets = table_grid(len(tables[0]))
    if offsets is None:
        raise ValueError(f'a relative position bias table has {len(tables[0])} rows, those of no window')
    window = tuple((n + 1) // 2 for n in offsets)
    common = dict(
        arch=dict(embed_dims=width, depths=depths, num_heads=tuple(table.shape[1] for table in tables)),
        window_size=window if len(window) == 3 else window[0],
        out_indices=tuple(i for i in range(len(depths)) if f'norm{i}.weight' in names),
        mlp_ratio=names['stages.0.encoder.layers.0.mlp.fc1.weight'].shape[0] / width,
        qkv_bias='stages.0.encoder.layers.0.attn.qkv.bias' in names,
        stem='conv' if 'patch_embed.layers.0.weight' in names else 'patch',
    )
    # Every second layer of a third stage of Swin has a table, the last of a unit of STViT-R has none.
    if f'stages.2.encoder.layers.{depths[2] - 1}.attn.relative_position_bias_table' in names:
        if len(window) == 3:
            return dict(
                type='mmstvit.STViTSwin3D',
                semantic_size=None,
                patch_size=tuple(names['patch_embed.projection.weight'].shape[2:]),
                **common,
            )
        return dict(type='mmstvit.STViTSwin', semantic_size=None, **common)
    return dict(
        type='mmstvit.STViTR',
        dense='norm0.weight' in names,
        use_global='stages.2.encoder.steps.2.global_centers' in names,
        conv_pos='stages.2.encoder.steps.1.conv.proj.0.weight' in names,
        relative_pos='stages.2.encoder.layers.3.attn.relative_position_bias_table' in names,
        layer_scale_init_value=1e-5 if 'stages.2.encoder.layers.1.layer_scale_1' in names else 0.0,
        **common,
    )
