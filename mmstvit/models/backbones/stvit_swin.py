"""STViT and STViT-R on the hierarchical transformer (Swin layout)."""

from collections.abc import Callable, Sequence
from functools import partial
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
from ...layers.options import axes_of, check_idle, rank_of, take_group
from ...layers.published_layout import PublishedWindows
from ...layers.steps import Generation, Recovery, Refinement, SelfAttention, Step
from ...layers.window_layout import PaddedWindows, StretchedWindows, WindowLayout, WindowSpec
from ...registry import MODELS
from .base import Backbone, outputs

STEMS = ('patch', 'conv')

# Of Swin and of Video Swin, by the axes of what they are for.
_PATCH_SIZE = {2: (4, 4), 3: (2, 4, 4)}

KEY_MASKS = ('exact', 'published', None)

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
_SEMANTIC_STAGE = 2


class Layer(NamedTuple):
    """A layer before it is built: what it does, and the options that depend on it.

    Attributes:
        step: makes the step, given the width of the stage.
        relative_window: window of a learned relative position bias, ``None`` for none.
        layer_scale_init_value: initial value of LayerScale, 0 for none.
    """

    step: Callable[[int], Step]
    relative_window: tuple[int, ...] | None = None
    layer_scale_init_value: float = 0.0


def swin_layers(depth: int, window: tuple[int, ...]) -> list[Layer]:
    """Return ordinary Swin layers: every second one in shifted windows."""
    return [Layer(lambda width, shifted=bool(i % 2): SelfAttention(shifted), window) for i in range(depth)]


class Stage(nn.Module):
    """The layers of one resolution, and the patch merging that leads to the next."""

    def __init__(self, encoder: Encoder, downsample: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.downsample = downsample


class SemanticSwin(Backbone):
    """What :class:`.STViTSwin` and :class:`.STViTR` share: Swin's stages, the third with any layers.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or a dict with ``embed_dims``, ``depths`` and ``num_heads``.
        layers: those of the third stage.
        layout: makes the layout of the tokens of an image, given the grid and the device.
        spec: the windows of the layout.
        stem: ``'patch'`` or ``'conv'``.
        out_indices: the stages whose maps are returned.
        patch_size: of the stem ``'patch'``, one number or one an axis; by default 4 x 4 pixels, of a clip two frames.
        in_channels: channels of the image.
        block: options of the layers: ``mlp_ratio``, hidden width of the MLPs over their width; ``qkv_bias``, whether
            the projections of query, key and value have a bias; ``drop_rate``, dropout after the stem, the output
            projections and in the MLPs; ``attn_drop_rate``, dropout of the attention weights; ``drop_path_rate``,
            stochastic depth of the last layer, growing linearly from 0 at the first; ``norm_cfg``, the norm layers;
            ``with_cp``, recompute activations in the backward pass to save memory. They may be given one by one too.
        frozen_stages: -1: nothing is frozen; 0: the stem; n: the first n stages too.
        init_cfg: initialisation, by default truncated normal weights in linear layers.
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
        out_indices: Sequence[int],
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
        self.out_indices = tuple(out_indices)
        if not out_indices or not all(0 <= i < len(depths) for i in out_indices):
            raise ValueError(f'out_indices={out_indices} must name some of the stages 0 to {len(depths) - 1}')

        rank = len(spec.window)
        if stem == 'patch':
            patch_size = _PATCH_SIZE[rank] if patch_size is None else axes_of('patch_size', patch_size, rank)
            self.patch_embed = PatchEmbed(in_channels, widths[0], patch_size, norm_cfg)
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
            of_stage = layers if i == _SEMANTIC_STAGE else swin_layers(depth, spec.window)
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


def centers_grid_of(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the grid of all semantic tokens at 224 px (and 32 frames): stage 3 has two windows along each axis."""
    return tuple(2 * s for s in size)


def _semantic_size(semantic_size: int | Sequence[int], window: tuple[int, ...]) -> tuple[int, ...]:
    size = axes_of('semantic_size', semantic_size, len(window))
    if not all(s <= w for s, w in zip(size, window)):
        tidy = window[0] if len(set(window)) == 1 else window
        raise ValueError(f'semantic_size={semantic_size} must be between 1 and window_size={tidy}')
    return size


def _fix_size(x: Tensor) -> None:
    """Let torch.compile make a graph for each image size, as many as its limit, and go on without beyond it.

    By itself it would try one graph for all sizes from the second on, and take minutes over the geometry of windows,
    which depends on the size in Python.
    """
    from torch._dynamo.comptime import comptime

    for length in x.shape[2:]:
        comptime.force_static(length)


@MODELS.register_module()
class STViTSwin(SemanticSwin):
    """Swin whose third stage goes over to semantic tokens, for classification.

    "Making Vision Transformers Efficient from A Token Sparsification View", arXiv 2303.08685. After ``stgm_layer``
    ordinary layers of the third stage, each window is pooled to ``semantic_size`` tokens along each axis, which gather
    what they stand for from a larger window around it (the STGM); the remaining layers alternate between the tokens of
    each window and all of them, and the last stage works on what patch merging makes of them. With
    ``semantic_size=None`` it is the plain Swin transformer, the dense baseline for comparisons.

    Takes images of any size, or clips of any length and size where ``window_size`` has three numbers: then it is Video
    Swin with semantic tokens in space and time. Checkpoints of Swin's authors and of mmpretrain, and of Video Swin and
    mmaction2, load as they are, those of images into a network for clips too.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` (the sizes of Swin), or a dict with ``embed_dims``, ``depths`` and
            ``num_heads``, the last two with one number a stage.
        window_size: tokens along each axis of a window: one number, ``(rows, columns)``, or for clips
            ``(time, rows, columns)``.
        semantic_size: semantic tokens along each axis of a window, or ``None`` for plain Swin.
        stgm_layer: ordinary layers of the third stage before the STGM; by default a third of its layers.
        pooling: how the first cluster centres are pooled, ``'max'`` or ``'avg'``.
        use_global: whether learned global cluster centres are added in the second layer of the STGM.
        stem: ``'patch'``: 4 x 4 patches, as Swin; ``'conv'``: two convolutions, as STViT-R.
        layer_scale_init_value: initial value of LayerScale in the layers from the STGM on; 0 means no LayerScale.
        out_indices: the stages whose maps are returned.
        **options: ``patch_size``, ``in_channels``, ``block`` or its options one by one, ``frozen_stages``,
            ``init_cfg``, see :class:`.SemanticSwin`.

    Raises:
        ValueError: an option has an unknown value, does not fit the others, or would have no effect.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        window_size: int | Sequence[int] = 7,
        semantic_size: int | Sequence[int] | None = 4,
        stgm_layer: int | None = None,
        pooling: str = 'max',
        use_global: bool = True,
        stem: str = 'patch',
        layer_scale_init_value: float = 0.0,
        out_indices: Sequence[int] = (3,),
        **options,
    ) -> None:
        depth = self.arch_settings(arch)['depths'][_SEMANTIC_STAGE]
        window = axes_of('window_size', window_size, rank_of('window_size', window_size))
        size = None if semantic_size is None else _semantic_size(semantic_size, window)
        if size is None:
            check_idle(
                'semantic_size=None',
                stgm_layer=(stgm_layer, None),
                pooling=(pooling, 'max'),
                use_global=(use_global, True),
                layer_scale_init_value=(layer_scale_init_value, 0.0),
            )
            layers = swin_layers(depth, window)
        else:
            before = depth // 3 if stgm_layer is None else stgm_layer
            if not 0 <= before <= depth - 2:
                raise ValueError(
                    f'stgm_layer={before} does not fit: the STGM takes two of the {depth} layers of the third stage, '
                    f'so it must be between 0 and {depth - 2}'
                )
            centers = centers_grid_of(size) if use_global else None
            steps = [partial(Generation, pooling=pooling), partial(Refinement, centers_grid=centers)]
            steps += [lambda width, across=bool(i % 2): SelfAttention(across=across) for i in range(depth - before - 2)]
            layers = swin_layers(before, window)
            layers += [Layer(step, layer_scale_init_value=layer_scale_init_value) for step in steps]
        # Plain Swin keeps the rule of its authors, so that its outputs are those of the toolboxes at any size.
        semantic = size is not None
        fit = semantic or len(window) == 3
        spec = WindowSpec(window, size or window, hide_padding=semantic, fit=fit)
        super().__init__(arch, layers, partial(StretchedWindows, spec), spec, stem, out_indices, **options)


@MODELS.register_module()
class STViTSwin3D(STViTSwin):
    """:class:`STViTSwin` with the sizes of Video Swin as defaults: 32 frames of 224 px have 8 windows in stage 3.

    Args:
        arch: as of :class:`STViTSwin`.
        patch_size: frames, rows and columns of a tubelet.
        window_size: tokens of a window, ``(time, rows, columns)``.
        semantic_size: semantic tokens of a window along each axis, or ``None`` for Video Swin.
        **options: of :class:`STViTSwin`.

    Raises:
        ValueError: an option has an unknown value, does not fit the others, or would have no effect.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        patch_size: Sequence[int] = (2, 4, 4),
        window_size: Sequence[int] = (8, 7, 7),
        semantic_size: Sequence[int] | None = (4, 4, 4),
        **options,
    ) -> None:
        axes_of('window_size', window_size, 3)
        super().__init__(arch, window_size, semantic_size, patch_size=patch_size, **options)


@MODELS.register_module()
class STViTR(SemanticSwin):
    """STViT-R: Swin whose third stage goes to semantic tokens and back, unit by unit, so that dense tasks profit too.

    arXiv 2303.08685, section 3.4, and the authors' published models. A unit is an ordinary layer, the two of the STGM,
    a layer on the semantic tokens of each window, one on all of them, and recovery, in which the image tokens query the
    semantic ones. The third stage is a row of such units.

    The classification form is for images near 224 px: all layers but the first of the STGM see everything. The dense
    form takes any size: each layer sees a larger window around its own. Weights of one fit the other. Both take clips
    where ``window_size`` has three numbers.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` (the sizes of Swin), or a dict with ``embed_dims``, ``depths`` and
            ``num_heads``; the third stage's depth must be a multiple of 6.
        window_size: tokens along each axis of a window: one number, ``(rows, columns)``, or for clips
            ``(time, rows, columns)``.
        semantic_size: semantic tokens along each axis of a window.
        dense: the dense form.
        shortcut: whether the first layer of the STGM adds to the pooled tokens; in the published classification models
            its output replaces them.
        use_global: whether learned global cluster centres are added in the first unit; classification form only.
        relative_pos: whether semantic layers have a relative position bias (those on all tokens in the classification
            form only, at 224 px).
        conv_pos: whether a depth-wise 3 x 3 convolution of each window's pooled tokens is added to them.
        key_mask: what is no key in the dense form: ``'exact'``: all padding and all that lies outside the image;
            ``'published'``: what the authors' code hides, needed to reproduce their detectors; ``None``: nothing.
        pooling: how the first cluster centres are pooled, ``'max'`` or ``'avg'``.
        stem: ``'conv'``: two convolutions, as published; ``'patch'``: 4 x 4 patches, as Swin.
        layer_scale_init_value: initial value of LayerScale in the layers of a unit after its first; 0 means none.
        out_indices: the stages whose maps are returned; by default the last, in the dense form all.
        **options: ``patch_size``, ``in_channels``, ``block`` or its options one by one, ``frozen_stages``,
            ``init_cfg``, see :class:`.SemanticSwin`.

    Raises:
        ValueError: an option has an unknown value, does not fit the others, or would have no effect.
    """

    def __init__(
        self,
        arch: str | dict = 'small',
        window_size: int | Sequence[int] = 7,
        semantic_size: int | Sequence[int] = 3,
        dense: bool = False,
        shortcut: bool = True,
        use_global: bool = False,
        relative_pos: bool = False,
        conv_pos: bool = False,
        key_mask: str | None = 'exact',
        pooling: str = 'max',
        stem: str = 'conv',
        layer_scale_init_value: float = 1e-5,
        out_indices: Sequence[int] | None = None,
        **options,
    ) -> None:
        depth = self.arch_settings(arch)['depths'][_SEMANTIC_STAGE]
        window = axes_of('window_size', window_size, rank_of('window_size', window_size))
        size = _semantic_size(semantic_size, window)
        if depth % 6:
            raise ValueError(f'the third stage has {depth} layers, which is no multiple of the 6 of a unit')
        if key_mask not in KEY_MASKS:
            raise ValueError(f'key_mask={key_mask!r} is unknown, choose from {KEY_MASKS}')
        if not dense:
            check_idle('dense=False', key_mask=(key_mask, 'exact'))
        if dense and use_global:
            raise ValueError('use_global=True is for dense=False: the centres belong to one image size')
        spec = WindowSpec(window, size, hide_padding=key_mask == 'exact', always_shift=dense)
        layout = partial(StretchedWindows, spec)
        if dense:
            exact = key_mask == 'exact'
            layout = partial(PaddedWindows, spec) if exact else partial(PublishedWindows, spec, hide=bool(key_mask))
        if out_indices is None:
            out_indices = (0, 1, 2, 3) if dense else (3,)
        cells = centers_grid_of(size)

        def unit(first: bool) -> list[Layer]:
            """An image layer, the STGM, semantic layers of each window and of all, and recovery."""
            generation = partial(Generation, pooling=pooling, shortcut=shortcut, conv_size=size if conv_pos else None)
            refinement = partial(Refinement, centers_grid=cells if use_global and first else None)
            on_cells = cells if relative_pos and not dense else None
            return [
                *swin_layers(1, window),
                Layer(generation, None, layer_scale_init_value),
                Layer(refinement, None, layer_scale_init_value),
                Layer(lambda width: SelfAttention(), size if relative_pos else None, layer_scale_init_value),
                Layer(lambda width: SelfAttention(across=True, grid=on_cells), on_cells, layer_scale_init_value),
                Layer(lambda width: Recovery(), None, layer_scale_init_value),
            ]

        layers = [layer for i in range(depth // 6) for layer in unit(first=i == 0)]
        super().__init__(arch, layers, layout, spec, stem, out_indices, **options)
