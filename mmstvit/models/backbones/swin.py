"""The hierarchical transformer that STViT on Swin and STViT-R share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from mmcv.cnn import build_norm_layer
from torch import Tensor

from ...converters import register_published_weights
from ...layers.block import TransformerBlock
from ...layers.embed import ConvStem, PatchEmbed, PatchMerging
from ...layers.encoder import Encoder
from ...layers.options import axes_of, check_idle, take_group
from ...layers.steps import SelfAttention, Step
from ...layers.window_layout import WindowLayout, WindowSpec
from .base import Backbone, outputs

STEMS = ('patch', 'conv')

# Of Swin and of Video Swin, by the axes of what they are for.
_PATCH_SIZE = {2: (4, 4), 3: (2, 4, 4)}

# Options of the layers of all stages, and their defaults.
BLOCK = dict(
    mlp_ratio=4.0,
    qkv_bias=True,
    drop_rate=0.0,
    attn_drop_rate=0.0,
    drop_path_rate=0.1,
    norm_cfg=None,
    with_cp=False,
)

# The stage whose layers work on semantic tokens; at 224 px it has 14 x 14 image tokens, and 16 steps of 32 frames.
SEMANTIC_STAGE = 2


class Layer(NamedTuple):
    """Specification of one layer of the third stage.

    Attributes:
        step: makes the step, given the width of the stage.
        relative_window: window of a learned relative position bias, ``None`` for none.
        layer_scale_init_value: initial value of LayerScale, 0 for none.
    """

    step: Callable[[int], Step]
    relative_window: tuple[int, ...] | None = None
    layer_scale_init_value: float = 0.0


def swin_layers(depth: int, window: tuple[int, ...]) -> list[Layer]:
    """Return the layers of plain Swin: every second one in shifted windows."""
    return [Layer(lambda width, shifted=bool(i % 2): SelfAttention(shifted), window) for i in range(depth)]  # type: ignore[misc]


class Stage(nn.Module):
    """One stage: its encoder, and the patch merging after it."""

    def __init__(self, encoder: Encoder, downsample: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.downsample = downsample


class SemanticSwin(Backbone):
    """Base class of :class:`.STViTSwin` and :class:`.STViTR`: Swin with configurable layers in the third stage.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or a dict with ``embed_dims``, ``depths`` and ``num_heads``.
        layers: those of the third stage.
        layout: makes the layout of the tokens of an image, given the grid and the device.
        spec: the windows of the layout.
        stem: ``'patch'`` or ``'conv'``.
        out_indices: the stages whose maps are returned, negative numbers count from the last.
        patch_size: of the stem ``'patch'``, one number or one an axis; by default 4 x 4 pixels, of a clip two frames.
        in_channels: channels of the image.
        block: options of the layers: ``mlp_ratio``, hidden width of the MLPs over their width; and of those of
            :class:`.STViT` ``qkv_bias``, ``drop_rate`` (after the stem too), ``attn_drop_rate``, ``drop_path_rate``,
            ``norm_cfg`` and ``with_cp``. They may be given one by one too.
        frozen_stages: -1: nothing is frozen; 0: the stem; n: the first n stages too.
        init_cfg: initialisation, by default truncated normal weights in linear layers.

    Attributes:
        out_channels: channels of each output.
    """

    flat_options = tuple(BLOCK)
    arch_zoo = {
        'tiny': dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
        'small': dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
        'base': dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    }

    def __init__(
        self,
        arch: str | dict,
        layers: Sequence[Layer],
        layout: Callable[..., WindowLayout],
        spec: WindowSpec,
        stem: str,
        out_indices: int | Sequence[int],
        patch_size: int | Sequence[int] | None = None,
        in_channels: int = 3,
        block: dict | None = None,
        frozen_stages: int = -1,
        init_cfg: dict | list | None = None,
        **options: Any,
    ) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer='Linear', std=0.02))
        arch = self.arch_settings(arch)
        block = take_group('block', block, BLOCK, options)
        if options:
            name = type(self).__name__
            raise TypeError(f'{name}.__init__() got an unexpected keyword argument {next(iter(options))!r}')
        norm_cfg = block['norm_cfg'] = block['norm_cfg'] or dict(type='LN', eps=1e-5)
        depths, heads = arch['depths'], arch['num_heads']
        if not len(depths) == len(heads) == 4:
            raise ValueError(f'depths={depths} and num_heads={heads} must have 4 numbers')
        widths = [arch['embed_dims'] * 2**i for i in range(len(depths))]
        self.spec, self.layout = spec, layout
        self.out_indices = self.chosen(out_indices, len(depths), 'stages')

        rank = len(spec.window)
        if stem == 'patch':
            patch_size = _PATCH_SIZE[rank] if patch_size is None else axes_of('patch_size', patch_size, rank)
            self.patch_embed: nn.Module = PatchEmbed(in_channels, widths[0], patch_size, norm_cfg)
        elif stem == 'conv':
            if rank != 2:
                raise ValueError("stem='conv' is for images: a clip needs stem='patch'")
            check_idle("stem='conv'", patch_size=(patch_size, None))
            self.patch_embed = ConvStem(in_channels, widths[0])
        else:
            raise ValueError(f'stem={stem!r} is unknown, choose from {STEMS}')
        self.drop_after_stem = nn.Dropout(block['drop_rate'])

        mlp_ratio, rate = block.pop('mlp_ratio'), block.pop('drop_path_rate')
        rates = iter(np.linspace(0, rate, sum(depths)).tolist())
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(widths, depths)):
            of_stage = layers if i == SEMANTIC_STAGE else swin_layers(depth, spec.window)
            blocks = [
                TransformerBlock(
                    width,
                    heads[i],
                    int(mlp_ratio * width),
                    drop_path_rate=next(rates),
                    layer_scale_init_value=layer.layer_scale_init_value,
                    relative_window=layer.relative_window,
                    **block,
                )
                for layer in of_stage
            ]
            encoder = Encoder(blocks, [layer.step(width) for layer in of_stage])
            last = i == len(depths) - 1
            self.stages.append(Stage(encoder, None if last else PatchMerging(width, norm_cfg)))
        self.out_channels = tuple(widths[i] for i in self.out_indices)
        for i in self.out_indices:
            self.add_module(f'norm{i}', build_norm_layer(norm_cfg, widths[i])[1])

        tables = [name for name, _ in self.named_parameters() if name.endswith('global_centers')]
        register_published_weights(self, tables=tables)
        self._freeze(frozen_stages, len(depths))

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        modules = [self.patch_embed, self.drop_after_stem, *self.stages[: self.frozen_stages]]
        return modules + [getattr(self, f'norm{i}') for i in self.out_indices if i < self.frozen_stages]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Extract features.

        Args:
            x: images (B, in_channels, height, width) or clips (B, in_channels, frames, height, width), of any size.

        Returns:
            One map (B, C, *grid) for each of ``out_indices``, each after a norm of its own; a clip's single map is not
            in a tuple, since mmaction2's heads take it so.
        """
        if torch.compiler.is_compiling():
            _fix_size(x)
        x = self.drop_after_stem(self.patch_embed(x))
        outs = []
        for i, stage in enumerate(self.stages):
            grid = tuple(x.shape[1:-1])
            tokens, _ = stage.encoder(x, self.layout(grid, x.device))
            x = tokens.x if tokens.image is None else tokens.layout.to_grid(tokens.x)
            if i in self.out_indices:
                outs.append(getattr(self, f'norm{i}')(x).movedim(-1, 1).contiguous())
            if stage.downsample is not None:
                x = stage.downsample(x)
        return outputs(outs, len(self.spec.window))

    def _depth_of(self, name: list[str]) -> int | None:
        if name[0] == 'patch_embed':
            return 0
        if name[0] != 'stages':  # stages.I.encoder.layers.J or stages.I.downsample
            return None
        depths = [len(stage.encoder.layers) for stage in self.stages[: int(name[1]) + 1]]  # type: ignore[arg-type]
        return sum(depths[:-1]) + (int(name[4]) + 1 if name[2] == 'encoder' else depths[-1])


def centers_grid_of(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the grid of all semantic tokens at 224 px (and 32 frames): stage 3 has two windows along each axis."""
    return tuple(2 * s for s in size)


def semantic_size_of(semantic_size: int | Sequence[int], window: tuple[int, ...]) -> tuple[int, ...]:
    size = axes_of('semantic_size', semantic_size, len(window))
    if not all(s <= w for s, w in zip(size, window)):
        tidy = window[0] if len(set(window)) == 1 else window
        raise ValueError(f'semantic_size={semantic_size} must be between 1 and window_size={tidy}')
    return size


def _fix_size(x: Tensor) -> None:
    """Make torch.compile specialise on the image size instead of tracing symbolic sizes.

    By itself it would try one graph for all sizes from the second on, and take minutes over the geometry of windows,
    which depends on the size in Python.
    """
    from torch._dynamo.comptime import comptime

    for length in x.shape[2:]:
        comptime.force_static(length)
