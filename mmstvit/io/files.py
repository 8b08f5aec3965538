"""Atomic writing of files."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Context manager that yields a temporary name beside ``path`` and removes the file unless it was moved away."""
    temporary = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, data: Any) -> None:
    """Write data as JSON, atomically; tensors, arrays, sets and tuples become lists, and keys strings."""
    write_whole(Path(path), (json.dumps(json_types(data), indent=2) + '\n').encode())


def json_types(data: Any) -> Any:
    """Return data in JSON's types, see :func:`write_json`."""
    if isinstance(data, dict):
        return {str(key): json_types(value) for key, value in data.items()}
    if isinstance(data, (list, tuple, set, frozenset)):
        return [json_types(value) for value in data]
    return data.tolist() if hasattr(data, 'tolist') else data


def remove_unfinished(folder: Path) -> list[Path]:
    """Remove temporary files of killed processes from a folder, and return their paths."""
    left = []
    for path in folder.glob('.*'):
        process = re.match(r'\.(\d+)\.', path.name)
        if process and not _is_at_work(int(process[1])):
            path.unlink(missing_ok=True)
            left.append(path)
    return left


def _is_at_work(process: int) -> bool:
    """Return whether another process has this process ID."""
    if process == os.getpid():  # an earlier one had it: in a container numbers are few
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def write_whole(path: Path, data: bytes, sync: bool = False) -> None:
    """Write a file atomically.

    Args:
        path: the file.
        data: its content.
        sync: whether it is on the disk before it has its name, so that a crash of the machine leaves no empty file.
    """
    with unfinished(path) as temporary:
        with temporary.open('wb') as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
