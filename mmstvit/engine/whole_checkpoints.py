"""Which checkpoint of a folder a training goes on from: the newest that is whole."""

import re
import zipfile
from pathlib import Path


def fault_of(path: Path) -> str | None:
    """Why a file is no whole checkpoint, or ``None`` where it is one.

    ``torch.save`` writes a zip file: its directory comes last, so that no part of a file has one, and each tensor has
    a checksum.
    """
    try:
        if path.stat().st_size == 0:
            return 'it is empty'
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        return f'{damaged} in it is damaged' if damaged else None
    except FileNotFoundError:
        return 'it is not there'
    except zipfile.BadZipFile as error:
        return f'it is cut off or no checkpoint ({error})'
    except OSError as error:
        return f'it cannot be read ({error.strerror})'


def newest_whole_checkpoint(
    work_dir: Path, filename_tmpl: str | None = None
) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The checkpoint that a run goes on from.

    It is the one that ``last_checkpoint`` names, or one with a higher number that was written after that file; where
    these are not whole, the nearest one before them. Files of the best weights hold no state of training and are left
    out.

    Args:
        work_dir: folder of the run, with ``last_checkpoint``.
        filename_tmpl: names of the checkpoints, with ``{}`` for the number, where they are not mmengine's.

    Returns:
        Its path or ``None``, and the paths that were passed over with the reasons.
    """
    pointer = work_dir / 'last_checkpoint'
    text = pointer.read_text().strip() if pointer.is_file() else ''
    last = _find(text, work_dir) if text else None
    names = ['epoch_{}.pth', 'iter_{}.pth', *([filename_tmpl] if filename_tmpl else [])]
    either = '|'.join(re.escape(name).replace(r'\{\}', r'\d+') for name in names)
    pattern = re.compile(rf'{either}|interrupted_.*\.pth')
    folders = {work_dir, last.parent if last else work_dir}
    checkpoints = {
        path for folder in folders if folder.is_dir() for path in folder.iterdir() if pattern.fullmatch(path.name)
    }
    written = pointer.stat().st_mtime_ns if last else 0
    passed_over: list[tuple[Path, str]] = []
    candidates = checkpoints | ({last} if last else set())
    for path in sorted(candidates, key=lambda path: _rank(path, last, written), reverse=True):
        fault = fault_of(path)
        if fault is None:
            return path, passed_over
        passed_over.append((path, fault))
    return None, passed_over


def _find(text: str, work_dir: Path) -> Path:
    """The file that ``last_checkpoint`` names; a folder that was moved has it beside."""
    path = Path(text)
    beside = work_dir / path.name
    return beside if beside.is_file() or not path.is_file() else path


def _rank(path: Path, last: Path | None, written: int) -> tuple[int, list[int]]:
    """What is newer than the last one comes before it, then what is before it, then what an earlier run has left."""
    numbers = _numbers(path)
    if last is None:
        group = 1
    elif path == last:
        group = 2
    elif numbers < _numbers(last):
        group = 1
    else:
        group = 3 if path.stat().st_mtime_ns > written else 0
    return group, numbers


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r'\d+', path.stem)]
