"""mmstvit: faster vision transformers by fewer tokens, in mmpretrain, mmdet, mmseg, mmaction2, timm and Hugging Face.

Importing it registers nothing eagerly and needs none of the toolboxes: mmengine finds ``type='mmstvit.STViT'`` by
itself, and the functions below import what they need when they are called.

What is changed in other packages, when they are imported, is what they offer no place for and any program needs:
mmaction2, mmcv's operators and, beside transformers 5, mmpretrain can be imported; mmengine reads checkpoints without
running what is in them, renames published ones, and finds ``mmstvit::`` and ``mmseg::`` configs; mmpretrain lists the
models of here.
What a training or a test needs is in its config: ``runner_type='mmstvit.Runner'`` and hooks.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .compat import mmaction2, mmcv_ext, mmengine_checkpoint, mmengine_packages, mmpretrain_hub, multimodal
from .version import __version__

if TYPE_CHECKING:  # the names of _LAZY, for type checkers and editors
    from .apis import create_model, get_model, inference_model
    from .apis.tuning import tune
    from .converters import convert_published_state_dict
    from .hub import from_pretrained, save_pretrained
    from .model_index import list_models
    from .models.reduction import reduce_, restore_

for _patch in (mmaction2, mmcv_ext, mmengine_checkpoint, mmengine_packages, mmpretrain_hub, multimodal):
    _patch.install()

_LAZY = {
    **dict.fromkeys(('create_model', 'get_model', 'inference_model'), 'mmstvit.apis'),
    **dict.fromkeys(('reduce_', 'restore_'), 'mmstvit.models.reduction'),
    **dict.fromkeys(('from_pretrained', 'save_pretrained'), 'mmstvit.hub'),
    'list_models': 'mmstvit.model_index',
    'convert_published_state_dict': 'mmstvit.converters',
    'tune': 'mmstvit.apis.tuning',
}

__all__ = ['__version__', *_LAZY]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
