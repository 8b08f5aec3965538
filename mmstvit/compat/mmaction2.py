"""Let mmaction2 1.2.0, its last release, be imported beside a current mmcv.

Two faults stand in the way, both unmended upstream since 2024:

* ``mmaction/__init__.py`` asserts mmcv < 2.2.0, though it works with later ones;
* the released wheel lacks the package ``mmaction.models.localizers.drn`` that ``mmaction.models`` imports.

:func:`install` adds two finders to the import system. The first repeats the failed assertion with the version shown as
2.1.0, for that one statement; the second answers for the missing package after every other finder has failed. With
both faults mended neither does anything, and this file can go. Nothing is imported before somebody asks for mmaction.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types

_MISSING = 'mmaction.models.localizers.drn'


class _VersionFinder(importlib.abc.MetaPathFinder):
    """Finds ``mmaction`` where it is, and runs its ``__init__`` again if it refuses mmcv's version."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != 'mmaction':
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _VersionLoader(spec.loader)
        return spec


class WrappedLoader(importlib.abc.Loader):
    """Hands everything on to another loader, but for what a subclass changes."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str):
        # Resources and source inspection ask the real loader.
        return getattr(self.loader, name)

    def create_module(self, spec):
        return self.loader.create_module(spec)


class _VersionLoader(WrappedLoader):
    def exec_module(self, module: types.ModuleType) -> None:
        try:
            self.loader.exec_module(module)
        except AssertionError as error:
            if 'MMCV' not in str(error):
                raise
            import mmcv

            version, mmcv.__version__ = mmcv.__version__, '2.1.0'
            try:
                self.loader.exec_module(module)
            finally:
                mmcv.__version__ = version


class _MissingFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers for the missing package with an empty one; its class ``DRN`` cannot be built."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname in (_MISSING, f'{_MISSING}.drn'):
            return importlib.util.spec_from_loader(fullname, self, is_package=fullname == _MISSING)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        class DRN:
            def __init__(self, *args, **kwargs) -> None:
                raise NotImplementedError('DRN is missing from the released mmaction2 wheel')

        module.DRN = DRN


def install() -> None:
    """Make ``import mmaction`` work from now on; may be called more than once."""
    if not any(isinstance(finder, _VersionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _VersionFinder())
        sys.meta_path.append(_MissingFinder())
