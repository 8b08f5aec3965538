"""The default scope of mmengine's registries, for threads that run models of one toolbox at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock

from mmengine.registry import DefaultScope

_lock = Lock()
_users: Counter[str] = Counter()
_overwritten: dict[str, AbstractContextManager] = {}


@contextmanager
def toolbox_scope(scope: str) -> Iterator[None]:
    """Context manager in which names are looked up in a toolbox.

    mmengine's own belongs to the process: the first thread that leaves it would take the scope away from the others.

    Args:
        scope: of the toolbox, e.g. ``'mmdet'``.
    """
    with _lock:
        current = DefaultScope.get_current_instance()
        shared = not _users[scope] or (current is not None and current.scope_name == scope)
        if shared and not _users[scope]:
            _overwritten[scope] = DefaultScope.overwrite_default_scope(scope)
            _overwritten[scope].__enter__()
        _users[scope] += shared
    if not shared:  # another scope was entered inside this one
        with DefaultScope.overwrite_default_scope(scope):
            yield
        return
    try:
        yield
    finally:
        with _lock:
            _users[scope] -= 1
            if not _users[scope]:
                _overwritten.pop(scope).__exit__(None, None, None)
