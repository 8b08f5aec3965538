"""The networks of this package in timm, by ``import mmstvit.timm``: ``timm.create_model('stvit_small_patch16_224')``.

Importing it registers them: ``timm.list_models('stvit*')`` shows them, and timm's own scripts train and validate them.
T2T-ViT keeps the names of its authors, ``t2t_vit_14``. Parameters have the names of :func:`mmstvit.create_model`, so
that files of either are those of the other. Files of DeiT, Swin and T2T-ViT load by
``pretrained=True, pretrained_cfg_overlay=dict(file='deit_small.pth')``.

timm drops options that are ``None``. For the dense baselines ``reduce=False`` and ``semantic_size=False`` stand for it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .apis.classifier import NETWORKS, Classifier, init_weights
from .compat.requires import require
from .converters.published import rename_for_model
from .models import STViT
from .models.backbones.base import Backbone

timm = require('timm', 'analysis', 'mmstvit.timm')

# How timm names pooling -> what a plain transformer puts out; hierarchical networks put out maps.
_POOLING = {'avg': 'avg_featmap', 'token': 'cls_token', '': 'raw'}
_NONE = ('reduce', 'semantic_grid', 'semantic_size')
# In the manner of timm: what stands after the size.
_SUFFIXES = {'stvit_swin': '_patch4_window7_224', 'stvit_r': '_patch4_window7_224', 'stvit': '_patch16_224'}


def timm_name(name: str) -> str:
    """Return the name in timm of a network of :func:`mmstvit.create_model`."""
    if 't2t' in name:
        return name
    return name + next(suffix for stem, suffix in _SUFFIXES.items() if name.startswith(stem))


NAMES = {timm_name(name): name for name in NETWORKS}


def _build(name: str, in_chans: int, options: dict[str, Any]) -> Backbone:
    """Build a backbone with initial weights, without them on the meta device."""
    kind, settings = NETWORKS[name]
    options = {key: None if value is False and key in _NONE else value for key, value in options.items()}
    backbone = kind(**{**settings, **options, 'in_channels': in_chans})
    if not next(backbone.parameters()).is_meta:
        init_weights(backbone)
    return backbone


class TimmClassifier(Classifier):
    """A :class:`.Classifier` with the arguments, attributes and methods that timm asks of its models.

    Args:
        name: of :func:`mmstvit.create_model`.
        num_classes: outputs; 0 for features without a classifier.
        in_chans: channels of the image.
        global_pool: ``'avg'``; ``'token'`` where there is a class token; ``''``, without a classifier, for features
            that are not pooled: tokens (B, N, C), prefix tokens first, or of hierarchical networks maps (B, C, rows,
            columns). By default what the network is trained with.
        drop_rate: dropout before the classifier; that inside the layers is ``block=dict(drop_rate=...)``.
        **options: settings of the backbone, e.g. ``img_size``, ``drop_path_rate``, ``semantic_grid``, ``reduce``.

    Raises:
        ValueError: an option has an unknown value, or pooling that this network or its classifier cannot have.
    """

    global_pool = 'avg'

    def __init__(
        self,
        name: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        **options: Any,
    ) -> None:
        backbone = _build(name, in_chans, options)
        super().__init__(backbone, 0)
        self.in_chans, self.drop_rate = in_chans, drop_rate
        self.head_hidden_size = self.num_features
        self.head_drop = nn.Dropout(drop_rate)
        out_type = getattr(backbone, 'out_type', 'avg_featmap')
        self.global_pool = next((key for key, value in _POOLING.items() if value == out_type), 'avg')
        self.reset_classifier(num_classes, global_pool)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one, with 0 by none, and the pooling where it is given."""
        if global_pool is not None:
            self._set_pooling(global_pool)
        if num_classes and not self.global_pool:
            raise ValueError("global_pool='' needs num_classes=0: a classifier takes pooled features")
        super().reset_classifier(num_classes)

    def _set_pooling(self, global_pool: str) -> None:
        plain = isinstance(self.backbone, STViT)
        token = plain and self.backbone.cls_token is not None
        names = [key for key in _POOLING if key != 'token' or token]
        if global_pool not in names:
            raise ValueError(f'global_pool={global_pool!r}: this network has {", ".join(map(repr, names))}')
        if plain:
            self.backbone.out_type = _POOLING[global_pool]
        self.global_pool = global_pool

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits (B, num_classes) of features, or with ``pre_logits`` what the classifier gets."""
        if self.global_pool:
            x = super().forward_head(x, pre_logits=True)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, or keep them."""
        for module in self.modules():
            if hasattr(module, 'with_cp'):
                setattr(module, 'with_cp', enable)  # noqa: B010  for type checkers a module has modules alone

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that training does not decay, beside norms and biases."""
        parts = ('pos_embed', 'cls_token', 'register_tokens', 'global_centers', 'relative_position_bias_table')
        return {name for name, _ in self.named_parameters() if name.endswith(parts)}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return what tells the depth of a parameter by its name, for layer-wise learning rates."""
        return lambda name: self.backbone.get_layer_depth(name, 'backbone.')[0]


class TimmFeatures(nn.Module):
    """Maps of several layers or stages: ``timm.create_model(..., features_only=True)``.

    STViT-R is built in its dense form, for images of any size. Maps of semantic tokens are as small as their grid;
    ``feature_info`` tells the strides at the nominal image size.

    Args:
        name: of :func:`mmstvit.create_model`.
        in_chans: channels of the image.
        out_indices: the stages, by default all, or the layers of a plain transformer, by default the last three; one
            number for the last so many.
        **options: settings of the backbone.

    Raises:
        ValueError: an option has an unknown value, or the maps grow again after they have shrunk, which timm has no
            place for.
    """

    num_classes = 0

    def __init__(
        self, name: str, in_chans: int = 3, out_indices: int | Sequence[int] | None = None, **options: Any
    ) -> None:
        super().__init__()
        kind, settings = NETWORKS[name]
        for unused in ('num_classes', 'global_pool'):  # timm gives them to all models
            options.pop(unused, None)
        if issubclass(kind, STViT):
            depth = kind.arch_settings(options.get('arch', settings['arch']))['num_layers']
            options['out_type'], default = 'featmap', 3
        else:
            depth = default = 4
            if name.startswith('stvit_r_'):
                options = {'dense': True, 'use_global': False, **options}
        chosen = default if out_indices is None else out_indices
        chosen = range(depth)[-chosen:] if isinstance(chosen, int) else chosen
        options['out_indices'] = indices = tuple(i + depth if i < 0 else i for i in chosen)
        strides = _strides(name, in_chans, options)
        if strides != sorted(strides):
            raise ValueError(f'out_indices={indices} have strides {strides}: choose those of maps that do not grow')
        self.backbone, self.in_chans = _build(name, in_chans, options), in_chans
        module = 'backbone.encoder.layers.{}' if issubclass(kind, STViT) else 'backbone.stages.{}'
        info = [
            dict(num_chs=width, reduction=stride, module=module.format(i), index=i)
            for i, width, stride in zip(indices, self.backbone.out_channels, strides)
        ]
        self.feature_info = timm.models.FeatureInfo(info, tuple(range(len(info))))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return a map (B, C, rows, columns) of each chosen layer or stage, of images (B, in_chans, height, width)."""
        return list(self.backbone(x))


def _strides(name: str, in_chans: int, options: dict[str, Any]) -> list[int]:
    """Return the pixels of each output along the height, by shapes alone."""
    size = options.get('img_size', 224)
    height, width = (size, size) if isinstance(size, int) else size
    with torch.device('meta'):
        outs = _build(name, in_chans, options)(torch.empty(1, in_chans, height, width))
    return [height // out.shape[2] for out in outs]


def _entry_point(timm_name: str, name: str) -> Callable[..., nn.Module]:
    """Return the function that timm calls for a name, which is its own."""

    def create(pretrained: bool = False, features_only: bool = False, **kwargs: Any) -> nn.Module:
        # What is missing and unexpected is reported, and other networks' files are refused, by the backbone itself.
        return timm.models.build_model_with_cfg(
            partial(TimmFeatures if features_only else TimmClassifier, name),
            timm_name,
            pretrained,
            pretrained_strict=False,
            pretrained_filter_fn=lambda state_dict, model: rename_for_model(model, state_dict),
            **kwargs,
        )

    create.__name__ = create.__qualname__ = timm_name
    create.__doc__ = f'Build ``{name}`` of mmstvit.'
    return create


def _cfg(name: str) -> dict[str, Any]:
    kind, _ = NETWORKS[name]
    # The convolution that takes the image: T2T-ViT has none.
    first = 'backbone.patch_embed.' + ('layers.0' if name.startswith('stvit_r_') else 'projection')
    return dict(
        url='',
        num_classes=1000,
        input_size=(3, 224, 224),
        pool_size=None,
        crop_pct=0.875,
        interpolation='bicubic',
        mean=timm.data.IMAGENET_DEFAULT_MEAN,
        std=timm.data.IMAGENET_DEFAULT_STD,
        first_conv=None if 't2t' in name else first,
        classifier='head.layers.head' if issubclass(kind, STViT) else 'head.fc',
        license='apache-2.0',
    )


default_cfgs = timm.models.generate_default_cfgs({timm_name: _cfg(name) for timm_name, name in NAMES.items()})
__all__ = ['NAMES', 'TimmClassifier', 'TimmFeatures', 'timm_name']
for _pair in NAMES.items():
    timm.models.register_model(_entry_point(*_pair))
