"""Ask for an optional package, or say in one line how to install it."""

import importlib
import importlib.util
from types import ModuleType


def require(package: str, extra: str, what: str = 'this') -> ModuleType:
    """Import an optional package.

    Args:
        package: the module to import, e.g. ``'mmdet'``.
        extra: the extra of mmstvit that installs it.
        what: what it is needed for, said in the message.

    Raises:
        ImportError: it is not installed, and the message names the extra; or it is and does not import, and the
            message gives the reason.
    """
    if not _found(package):
        raise ImportError(f"{package} is needed for {what}: pip install 'mmstvit[{extra}]'")
    try:
        return importlib.import_module(package)
    except (ImportError, AssertionError) as error:  # the toolboxes assert the versions of mmcv and mmengine
        reason = str(error).strip().split('\n')[0]
        raise ImportError(
            f'{package} is needed for {what} and does not import ({reason}): '
            '`python -m mmstvit.check_env` shows what clashes'
        ) from error


def _found(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # its parent is absent, or a module without a spec stands in its place
        return False
