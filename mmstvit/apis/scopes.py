"""The default scope of mmengine's registries, while parts of a toolbox are built."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from mmengine.registry import DefaultScope

_lock = RLock()


@contextmanager
def toolbox_scope(scope: str) -> Iterator[None]:
    """Context manager in which names are looked up in a toolbox.

    mmengine's scope belongs to the process, so one thread at a time can be inside.

    Args:
        scope: of the toolbox, e.g. ``'mmdet'``.
    """
    with _lock, DefaultScope.overwrite_default_scope(scope):
        yield
