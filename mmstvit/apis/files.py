"""Find images and videos in folders."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')


VIDEOS = ('.mp4', '.avi', '.mkv', '.mov', '.webm')


def find_inputs(given: Sequence[str], endings: Sequence[str]) -> list[Path]:
    """The files that are named, and those with one of the endings in the folders that are, sorted, each once.

    Raises:
        UsageError: one is not there, or a folder has none.
    """
    found = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            inside = sorted(p for p in path.rglob('*') if p.suffix.lower() in endings and not _hidden(p, path))
            if not inside:
                raise UsageError(f'the folder {name} has no file that ends in {", ".join(endings)}')
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f'there is no file or folder {name}')
    return list(dict.fromkeys(found))


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith('.') for part in path.relative_to(root).parts)
