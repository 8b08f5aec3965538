"""Where to write what is made of files: never over one of them."""

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import UsageError


def places_below(folder: str | Path, files: Sequence[str | Path]) -> list[Path]:
    """Return a place for what is made of each file: below a folder, as the files lie below the one they have in common.

    Places have the names of the files with their endings, so that ``a.jpg`` and ``a.png`` have two; what is written
    there has one more.

    Args:
        folder: where the places are.
        files: absolute or relative paths, at least one.
    """
    full = [Path(os.path.abspath(file)) for file in files]
    if len({path.drive for path in full}) > 1:  # of Windows
        return [Path(folder, path.drive.strip(':'), path.relative_to(path.anchor)) for path in full]
    root = os.path.commonpath([path.parent for path in full])
    return [Path(folder, path.relative_to(root)) for path in full]


def refuse_overwriting(outputs: Iterable[str | Path], inputs: Iterable[str | Path], mend: str) -> None:
    """Refuse to write a file over one that is read, whatever the names by which both are given.

    Args:
        outputs: the files that are to be written.
        inputs: the files that are read; what is no local file is passed over.
        mend: what to do, the end of the line.

    Raises:
        UsageError: one of the outputs is an input.
    """
    read = {_identity(path): path for path in inputs}
    for path in outputs:
        identity = _identity(path)
        if identity and identity in read:
            raise UsageError(f'{path} would be written over {read[identity]}, which is read: {mend}')


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What a file is the same by, or ``None`` where there is none."""
    with contextlib.suppress(OSError, ValueError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return None
