"""Let mmaction2 1.2.0, its last release, be imported beside a current mmcv.

Two faults stand in the way, both unmended upstream since 2024:

* ``mmaction/__init__.py`` asserts mmcv < 2.2.0, though it works with later ones;
* the released wheel lacks the package ``mmaction.models.localizers.drn`` that ``mmaction.models`` imports.

The failed assertion is repeated with the version shown as 2.1.0, for that one statement, and another module stands in
the place of the missing one. With both faults mended neither is done, and this file can go. Nothing is imported before
somebody asks for mmaction.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from .finders import execute_with

_MISSING = 'mmaction.models.localizers.drn.drn'


class _DRN:
    def __init__(self, *args, **kwargs) -> None:
        raise NotImplementedError('DRN is missing from the released mmaction2 wheel')


def _execute(exec_module: Callable[[ModuleType], None], module: ModuleType) -> None:
    try:
        exec_module(module)
    except AssertionError as error:
        if 'MMCV' not in str(error):
            raise
        import mmcv

        version, mmcv.__version__ = mmcv.__version__, '2.1.0'
        try:
            exec_module(module)
        finally:
            mmcv.__version__ = version
    if not (Path(module.__path__[0]) / 'models/localizers/drn').is_dir():
        missing = sys.modules[_MISSING] = ModuleType(_MISSING)
        missing.DRN = _DRN  # type: ignore[attr-defined]


def install() -> None:
    """Make ``import mmaction`` work from now on; may be called more than once."""
    execute_with('mmaction', _execute)
