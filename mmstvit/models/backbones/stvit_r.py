"""STViT-R: semantic tokens with recovery of the full-resolution map."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ...layers.options import axes_of, check_idle
from ...layers.published_layout import PublishedWindows
from ...layers.steps import Generation, Recovery, Refinement, SelfAttention
from ...layers.window_layout import PaddedWindows, StretchedWindows, WindowSpec
from ...registry import MODELS
from .swin import SEMANTIC_STAGE, Layer, SemanticSwin, centers_grid_of, semantic_size_of, swin_layers

KEY_MASKS = ('exact', 'published', None)


@MODELS.register_module()
class STViTR(SemanticSwin):
    """STViT-R: Swin whose third stage alternates between semantic tokens and recovered image tokens.

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
        out_indices: int | Sequence[int] | None = None,
        **options,
    ) -> None:
        depth = self.arch_settings(arch)['depths'][SEMANTIC_STAGE]
        window = axes_of('window_size', window_size)
        size = semantic_size_of(semantic_size, window)
        if depth % 6:
            raise ValueError(f'the third stage has {depth} layers, which is no multiple of the 6 of a unit')
        if key_mask not in KEY_MASKS:
            raise ValueError(f'key_mask={key_mask!r} is unknown, choose from {KEY_MASKS}')
        if not dense:
            check_idle('dense=False', key_mask=(key_mask, 'exact'))
        if dense and use_global:
            raise ValueError('use_global=True is for dense=False: the centres belong to one image size')
        spec = WindowSpec(window, size, hide_padding=key_mask == 'exact', always_shift=dense)
        layout: Any = partial(StretchedWindows, spec)
        if dense:
            exact = key_mask == 'exact'
            layout = partial(PaddedWindows, spec) if exact else partial(PublishedWindows, spec, hide=bool(key_mask))
        if out_indices is None:
            out_indices = (0, 1, 2, 3) if dense else (3,)
        cells = centers_grid_of(size)

        def unit(first: bool) -> list[Layer]:
            """Return one unit: an image layer, the STGM, a layer within windows, one across windows, and recovery."""
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
