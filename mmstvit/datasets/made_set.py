"""Data sets that are drawn by seed into a folder: written whole or not at all, resumed, never mixed with others."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.progress import Progress

from ..io.files import write_whole
from .digits import SPLITS


class MadeSet(ABC):
    """A folder of numbered files with lists of them, one set of lists a split; what a call has written is kept.

    Files are ``train/000000`` and so on with a suffix, the same for ``val``. The last list of a split records the
    settings that the split was made with, and the lists are written when all files of the split are there.

    Args:
        out_dir: the folder of the data set.
        train: number of files for training.
        val: number of files for validation.
        size: height and width of the pictures, in pixels.
        seed: of the data set.

    Raises:
        ValueError: a count, the size or the seed is out of range.
    """

    kind: str  # what the files hold, in the plural
    suffix: str  # of the files
    recipe: int  # counted up with each change of the pictures, so that sets of different recipes do not mix
    sizes: tuple[int, int]  # the least and the greatest

    def __init__(self, out_dir: str | Path, train: int, val: int, size: int, seed: int) -> None:
        self.out_dir, self.counts, self.size, self.seed = Path(out_dir), dict(train=train, val=val), size, seed
        for split, count in self.counts.items():
            if count < 1:
                raise ValueError(f'{split} must be at least 1 {self.kind[:-1]}, got {count}')
        if not self.sizes[0] <= size <= self.sizes[1]:
            raise ValueError(f'size must be from {self.sizes[0]} to {self.sizes[1]} pixels, got {size}')
        if seed < 0:
            raise ValueError(f'seed must not be negative, got {seed}')

    @abstractmethod
    def lists(self, split: str) -> Sequence[Path]:
        """The paths of the lists of a split; the last is JSON with ``settings``, of COCO's in its ``info``."""

    @abstractmethod
    def encode(self, split: str, index: int) -> tuple[Sequence[bytes], object]:
        """Draw a picture or clip: the contents of its files, and what the lists need to know of it."""

    @abstractmethod
    def encode_lists(self, split: str, known: Sequence) -> Sequence[bytes]:
        """The contents of the lists of a split, given what :meth:`encode` told of each of its files."""

    def settings(self, split: str) -> dict:
        """What the last list of a split records of how it was made."""
        drawn = dict(size=self.size, seed=self.seed, recipe=self.recipe)
        return {'split': split, self.kind: self.counts[split], **drawn}

    def path(self, split: str, index: int) -> Path:
        """Where a picture or clip is."""
        return self.out_dir / split / f'{index:06d}{self.suffix}'

    def paths(self, split: str, index: int) -> Sequence[Path]:
        """The files of a picture or clip: it, and what belongs to it."""
        return [self.path(split, index)]

    def make(self, overwrite: bool = False, progress: bool = True) -> int:
        """Write what is missing.

        Args:
            overwrite: remove a set that is there first: its lists and all files with such numbers as names.
            progress: whether to show a progress bar.

        Returns:
            The number of files that were drawn, 0 where the set was complete.

        Raises:
            OSError: the folder cannot be written, or holds a set of other settings.
        """
        if self.out_dir.exists() and not self.out_dir.is_dir():
            raise NotADirectoryError(f'{self.out_dir} is a file: name a folder')
        if overwrite:
            self._clear()
        todo = {split: self._todo(split) for split in SPLITS}
        total = sum(map(len, todo.values()))
        if total == 0:
            return 0
        for split in SPLITS:
            for path in (*self.paths(split, 0), *self.lists(split)):
                path.parent.mkdir(parents=True, exist_ok=True)
        # In a terminal a moving bar, in a log file one line at the end.
        with Progress(disable=not progress) as bar:
            task = bar.add_task(self.kind, total=total)
            for split, indices in todo.items():
                self._write_split(split, indices, lambda: bar.advance(task))
        return total

    def _clear(self) -> None:
        for split in SPLITS:
            for path in self.lists(split):
                path.unlink(missing_ok=True)
            for folder in (path.parent for path in self.paths(split, 0)):
                for path in folder.glob('[0-9]' * 6 + self.suffix):
                    path.unlink()

    def _todo(self, split: str) -> Sequence[int]:
        """The files to draw: all while a list is missing, then those that have gone."""
        *others, record = self.lists(split)
        indices = range(self.counts[split])
        if record.exists():
            self._check_settings(split, record)
        if not all(path.exists() for path in (*others, record)):
            return indices
        return [i for i in indices if not all(map(_has_content, self.paths(split, i)))]

    def _check_settings(self, split: str, record: Path) -> None:
        try:
            content = json.loads(record.read_text())
            settings = content.get('info', content)['settings']
        except (ValueError, AttributeError, KeyError, TypeError):  # not JSON, or not of this form
            settings = None
        if settings != self.settings(split):
            pairs = settings.items() if isinstance(settings, dict) else ()
            text = ', '.join(f'{key}={value}' for key, value in pairs) or 'unknown'
            raise _refusal(record, f'was made with other settings ({text})')

    def _write_split(self, split: str, indices: Sequence[int], update: Callable[[], None]) -> None:
        """Write the files of a split, then its lists if one is missing; ``update`` is called after each file."""
        known = []
        for index in indices:
            contents, about = self.encode(split, index)
            for path, data in zip(self.paths(split, index), contents, strict=True):
                if not _has_content(path):
                    write_whole(path, data)
                elif path.read_bytes() != data:
                    raise _refusal(path, f'is another {self.kind[:-1]}')
            known.append(about)
            update()
        lists = self.lists(split)
        if not all(path.exists() for path in lists):
            for path, data in zip(lists, self.encode_lists(split, known)):
                write_whole(path, data, sync=True)


def _refusal(path: Path, what: str) -> FileExistsError:
    return FileExistsError(f'{path} {what}: choose another folder, or replace what is there with --overwrite')


def _has_content(path: Path) -> bool:
    # A crash of the machine can leave an empty file, since files are not synced to the disk one by one.
    return path.is_file() and path.stat().st_size > 0
