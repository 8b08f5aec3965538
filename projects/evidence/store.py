"""What the evidence keeps: results of runs as JSON, each with the contents of its config as a hash."""

import base64
import contextlib
import fcntl
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmstvit.clashes import LINES
from mmstvit.errors import UsageError, one_line
from mmstvit.io.files import write_whole
from mmstvit.paths import package_data

from .plan import Run, config_file

_PACKAGES = {'mmstvit': ('mmstvit',), 'torch': ('torch',), **LINES}


class Busy(UsageError):
    """Another command is at work in the folder."""


def config_path(name: str) -> Path:
    """The file of a config."""
    return package_data() / config_file(name)


def read_config(run: Run) -> Config:
    """The config of a run with its overrides; the epochs of a limited time are not among them.

    Raises:
        UsageError: there is none.
    """
    path = config_path(run.config)
    if not path.is_file():
        raise UsageError(f'there is no config {path}')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(run.overrides)
    return cfg


def fingerprint(contents: Any) -> str:
    """A hash of what a config (or anything JSON can hold) contains, wherever it stands."""
    contents = contents.to_dict() if isinstance(contents, Config) else contents
    return hashlib.sha256(json.dumps(contents, sort_keys=True, default=str).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of what a training depends on, where it is installed."""
    by_package = {'python': '.'.join(map(str, sys.version_info[:3]))}
    for package, distributions in _PACKAGES.items():
        for name in distributions:
            with contextlib.suppress(PackageNotFoundError):
                by_package[package] = version(name)
                break
    return by_package


def write_json(path: Path, contents: Any) -> None:
    """Write a file whole or not at all: a kill in between leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f'{json.dumps(contents, indent=1)}\n'.encode())


def read_json(path: Path) -> Any:
    """What a file holds, ``None`` where it is not there or broken."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None


def pack_right(rows: Path) -> str:
    """Pack which samples a classifier has right, in the order of the data set, see :func:`pack`.

    Args:
        rows: predictions as ``tools/test.py --out FILE.jsonl`` writes them.
    """
    with rows.open(encoding='utf-8') as lines:
        predictions = [json.loads(line) for line in lines]
    return pack(np.array([row['pred_label'] == row['gt_label'] for row in predictions]))


def pack(right: np.ndarray) -> str:
    """Pack (samples,) of bool, a bit each, as base64 behind their number."""
    return f'{len(right)}:{base64.b64encode(np.packbits(right)).decode()}'


def unpack_right(packed: str) -> np.ndarray:
    """Undo :func:`pack`."""
    number, _, bits = packed.partition(':')
    return np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8), count=int(number)).astype(bool)


def result_path(root: Path, run: Run) -> Path:
    """The file of a finished run."""
    return root / 'results' / f'{run.name}.json'


def finished(root: Path, run: Run, config_hash: str) -> dict | None:
    """The result of a run, if it was made with a config of the same contents."""
    result = read_json(result_path(root, run))
    return result if result and result.get('config_hash') == config_hash else None


def read_runs(root: Path, runs: Sequence[Run], say: Callable[[str], None]) -> list[dict]:
    """The results that are there; those of another config are named and left out."""
    results = []
    for run in runs:
        result = read_json(result_path(root, run))
        if result is None:
            continue
        try:
            current = fingerprint(read_config(run))
        except Exception as error:  # a config is a program: it may raise anything
            say(f'left out {run.name}: {one_line(error)}')
            continue
        if result.get('config_hash') == current:
            results.append(result)
        else:
            say(f'left out {run.name}: its config has changed since, run it again')
    return results


def take_up(kept: Path, root: Path, replace: bool = False) -> None:
    """Bring results from a JSON file into the folder where it lacks them, as in a fresh checkout.

    Args:
        kept: the file beside the page, of this machine or another.
        root: folder of everything that is kept.
        replace: whether they take the place of those that are there; then the file must be there too.

    Raises:
        UsageError: it has no results, and was to.
    """
    evidence = read_json(kept) or {}
    if replace and not evidence.get('runs'):
        raise UsageError(f'there are no results in {kept}')
    results = {'results': evidence.get('runs', []), 'measured': evidence.get('measured', {}).values()}
    for folder, entries in results.items():
        for result in entries:
            path = root / folder / f'{result["name"]}.json'
            if replace or not path.exists():
                write_json(path, result)


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[int]:
    """Hold the folder for this command and the trainings that it starts; gives the file that they inherit.

    Raises:
        Busy: another command, or a training that outlived its own, is at work there.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / 'lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy(
                f'another run of this command, or a training that it left behind, is at work in {root}: wait for its '
                'end or name another --work-dir'
            ) from error
        yield lock.fileno()
