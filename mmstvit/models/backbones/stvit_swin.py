"""STViT on Swin, for images and clips."""

from collections.abc import Callable, Sequence
from functools import partial

from ...layers.options import axes_of, check_idle
from ...layers.steps import Generation, Refinement, SelfAttention, Step
from ...layers.window_layout import StretchedWindows, WindowSpec
from ...registry import MODELS
from .swin import SEMANTIC_STAGE, Layer, SemanticSwin, centers_grid_of, semantic_size_of, swin_layers


@MODELS.register_module()
class STViTSwin(SemanticSwin):
    """STViT on Swin: the third stage reduces each window to semantic tokens, for classification.

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
        out_indices: int | Sequence[int] = (3,),
        **options,
    ) -> None:
        depth = self.arch_settings(arch)['depths'][SEMANTIC_STAGE]
        window = axes_of('window_size', window_size)
        size = None if semantic_size is None else semantic_size_of(semantic_size, window)
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
            steps: list[Callable[[int], Step]] = [
                partial(Generation, pooling=pooling),
                partial(Refinement, centers_grid=centers),
            ]
            steps += [
                lambda width, across=bool(i % 2): SelfAttention(across=across)  # type: ignore[misc]
                for i in range(depth - before - 2)
            ]
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
