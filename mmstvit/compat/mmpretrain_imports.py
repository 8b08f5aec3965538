"""Let mmpretrain be imported without mmdet.

One module of mmpretrain, a layer for detectors, imports all of mmdet where it is installed, and with it pandas,
Matplotlib and half of scikit-learn: most of the time that a classifier takes to start. Here that module first does what
it does where mmdet is not installed, and is executed again as soon as ``mmdet.models`` is imported. This can go when
mmpretrain imports the layer where it is used.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from .finders import execute_with

_NAME, _DETECTORS = 'mmpretrain.models.utils.res_layer_extra_norm', 'mmdet.models'


def _execute(exec_module: Callable[[ModuleType], None], module: ModuleType) -> None:
    if _DETECTORS in sys.modules:
        exec_module(module)
        return
    before = {'mmdet': sys.modules['mmdet']} if 'mmdet' in sys.modules else {}
    sys.modules['mmdet'] = None  # type: ignore[assignment]  # imports of it raise ImportError, which the module expects
    try:
        exec_module(module)
    finally:
        del sys.modules['mmdet']
        sys.modules.update(before)


def _complete(detectors: ModuleType) -> None:
    """Register the layer with mmdet."""
    module = sys.modules.get(_NAME)
    if module is not None and module.ResLayerExtraNorm is None:
        importlib.reload(module)
        utils: Any = sys.modules['mmpretrain.models.utils']
        utils.ResLayerExtraNorm = module.ResLayerExtraNorm


def install() -> None:
    """Change the import of that module from now on; may be called more than once."""
    execute_with(_NAME, _execute)
    wrapt.register_post_import_hook(_complete, _DETECTORS)
