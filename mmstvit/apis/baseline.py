"""The dense baseline of a network: the same without semantic tokens, what its cost and speed are compared with."""

import copy
import inspect
from typing import Any

from mmengine.config import Config, ConfigDict

from ..models import STViT, STViTR, STViTSwin, T2TViT
from ..models.backbones.stvit import SHORT_FORM
from ..registry import MODELS, entries_of, type_name

# Options that mean nothing without semantic tokens.
_OF_TOKENS = {
    STViT: tuple(SHORT_FORM),
    STViTSwin: ('stgm_layer', 'pooling', 'use_global', 'layer_scale_init_value'),
}
# Those of STViT-R that Swin has not, or not as a part of it: its convolutional stem is the authors' own.
_OF_STVIT_R = (
    *('semantic_size', 'dense', 'shortcut', 'use_global', 'relative_pos', 'conv_pos', 'key_mask', 'pooling'),
    *('stem', 'layer_scale_init_value'),
)


def dense_baseline(cfg: Config) -> Config:
    """Make the config of the same network without semantic tokens.

    Of :class:`.STViT` and :class:`.T2TViT` it is the plain transformer, of :class:`.STViTSwin` and :class:`.STViTR`
    plain Swin, of the latter with Swin's stem of patches. Sizes, head and data stay. A neck :class:`.TokenRecovery`,
    which has nothing to recover, is left out.

    Args:
        cfg: of a model of any of the toolboxes; it is not changed.

    Raises:
        ValueError: its backbone has no semantic tokens.
    """
    baseline = copy.deepcopy(cfg)
    backbone = (baseline.get('model') or {}).get('backbone') or {}
    kind: Any = backbone.get('type')
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    base = next((c for c in (STViT, STViTSwin, STViTR) if inspect.isclass(kind) and issubclass(kind, c)), None)
    option = 'reduce' if base is STViT else 'semantic_size'
    default = None if base is None else _default(kind, option)
    if base is STViT:
        default = backbone.get('semantic_grid', None if issubclass(kind, T2TViT) else default)
    if base is None or backbone.get(option, default) is None:
        raise ValueError(f'{getattr(kind, "__name__", kind)} has no semantic tokens here, and so no dense baseline')
    if base is STViTR:
        kept = {key: value for key, value in backbone.items() if key not in _OF_STVIT_R}
        kept.update(type='mmstvit.STViTSwin', arch=backbone.get('arch', _default(kind, 'arch')))
        if backbone.get('dense', _default(kind, 'dense')):
            kept.setdefault('out_indices', (0, 1, 2, 3))
        baseline.model.backbone = backbone = ConfigDict(kept)
    else:
        for name in _OF_TOKENS[base]:
            backbone.pop(name, None)
    backbone[option] = None
    _without_recovery(baseline.model)
    return baseline


def _default(kind: type, option: str) -> Any:
    """Return the default of an option, of a class or the one that it hands its options on to."""
    parameters = (inspect.signature(c).parameters.get(option) for c in inspect.getmro(kind))
    return next(parameter.default for parameter in parameters if parameter is not None)


def _without_recovery(model: ConfigDict) -> None:
    """Remove the neck that recovers image tokens; the last map of the backbone is one of image tokens already."""
    necks = entries_of(model.get('neck'))
    kept = [neck for neck in necks if type_name(neck) != 'TokenRecovery']
    if len(kept) < len(necks):
        model.neck = kept or None
        model.backbone.out_indices = (model.backbone.out_indices[-1],)
