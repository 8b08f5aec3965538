"""Change what one module does when it is imported."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, execute: Callable) -> None:
        self.name, self.execute = name, execute

    def find_spec(self, fullname, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname == self.name else None
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(self.execute, spec.loader.exec_module)
        return spec


def execute_with(name: str, execute: Callable[[Callable[[ModuleType], None], ModuleType], None]) -> None:
    """Let ``execute(exec_module, module)`` execute a module when it is imported; once, however often it is called.

    Args:
        name: of the module, which is found where it is.
        execute: gets what Python would call for it, and the module.
    """
    if not any(isinstance(finder, _Finder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(name, execute))
