"""Let mmcv's operators be imported where mmcv was installed without its compiled ``mmcv._ext``.

mmcv is published as source alone, and pip's isolated build of it leaves the compiled operators out. What detectors need
of them is in torchvision's wheels; :mod:`.mmcv_operators` gives it to mmcv. The finder stands behind all others, so
that a compiled ``mmcv._ext`` is never shadowed. It can go when mmcv has wheels.
"""

import importlib.abc
import importlib.util
import sys
from pathlib import Path

_NAME = 'mmcv._ext'
_FILE = Path(__file__).with_name('mmcv_operators.py')


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        return importlib.util.spec_from_file_location(_NAME, _FILE) if fullname == _NAME else None


def install() -> None:
    """Make ``import mmcv._ext`` work from now on; may be called more than once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
