"""Files that are there as a whole or not at all, whatever interrupts their writing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A name beside ``path``, with its suffix, for a file that is removed at the end unless it was moved away."""
    temporary = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, sync: bool = False) -> None:
    """Write a file that is either there as a whole or not at all.

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
