"""Safe reading, downloading and writing of checkpoints: no code in a file runs.

Unpickling is PyTorch's weights-only one with a narrow list of further types: mmengine's has ``getattr``, and numpy's
``dtype``, whose state can break memory. ``mmstvit.compat.mmengine_checkpoint`` puts what is here in the place of
mmengine's, so that ``load_from``, ``init_cfg``, resuming, inference and the converters all end here.
"""

import argparse
import hashlib
import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import UsageError
from .downloads import DownloadError, download
from .pickles import NUMPY, refused

SAFETENSORS = '.safetensors'
# Earlier versions have a hole in weights-only loading (CVE-2025-32434); setup.py asks for as much.
_SAFE_TORCH = '2.6.0'
# Eight or more digits of the file's SHA-256, as in the names of PyTorch's and OpenMMLab's files; a date is none.
_HASH = re.compile(r'-(?!20\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.\w+$')
_TRUST = 'give --trust-checkpoint (in Python trust_checkpoint=True) if you know who made it'
_trusted = ContextVar('trusted', default=False)


class CheckpointError(UsageError, ValueError):
    """A checkpoint that cannot be read; the message is one line that begins with its name."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that could run code and is read only if trusted."""


@contextmanager
def trust_checkpoints(trust: bool = True) -> Iterator[None]:
    """Context manager that lets code in checkpoints run if ``trust`` is set."""
    token = _trusted.set(trust or _trusted.get())
    try:
        yield
    finally:
        _trusted.reset(token)


# -------------------------------------------------------------------------------------- what may be in a checkpoint
def _statistic(owner: type, name: str) -> Any:
    """Stands for ``getattr``, by which the statistics of mmengine's logs are pickled."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError('Unsupported GLOBAL getattr')
    return getattr(owner, name)


_ALLOWED: list[Any] = [
    *NUMPY,
    (_statistic, 'builtins.getattr'),
    (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (ConfigDict, 'mmengine.config.config.ConfigDict'),
    (argparse.Namespace, 'argparse.Namespace'),
    # The settings in files of Swin's authors, a dict that is read whether yacs is there or not.
    (OrderedDict, 'yacs.config.CfgNode'),
]


# ------------------------------------------------------------------------------------------------------------ reading
def load(file: Any, map_location: Any = None, **unused: Any) -> Any:
    """Load a checkpoint like ``torch.load``, without running code in it.

    Args:
        file: a path, or an open file. ``*.safetensors`` is read as that.
        map_location: as in ``torch.load``.
        **unused: mmengine's ``weights_only``.

    Returns:
        What the file holds; of safetensors a dict with ``state_dict`` and ``meta``, see :func:`save_safetensors`.

    Raises:
        CheckpointError: it is no checkpoint or a broken one, or holds objects that could run code.
        OSError: it cannot be opened.
    """
    is_path = isinstance(file, (str, os.PathLike))
    name = str(file) if is_path else getattr(file, 'name', 'the checkpoint')
    if is_path and Path(file).suffix == SAFETENSORS:
        return _load_safetensors(name, map_location)
    if _trusted.get():
        return torch.load(file, map_location=map_location, weights_only=False)
    if digit_version(torch.__version__) < digit_version(_SAFE_TORCH):
        raise UnsafeCheckpointError(
            f'{name}: PyTorch {torch.__version__} cannot read files without running what is in them: update it to '
            f'{_SAFE_TORCH} or later, or {_TRUST}'
        )
    if is_path:
        open(file, 'rb').close()  # what is raised here is no fault of the content
    try:
        _check_records(file)
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # whatever a broken file raises, it is the file's fault
        what = refused(error)
        if what:
            raise UnsafeCheckpointError(
                f'{name}: it holds {what}, which could run code, and is not read: {_TRUST}'
            ) from error
        raise CheckpointError(
            f'{name}: torch.save has not written it in its usual form, or it is incomplete'
        ) from error


def _check_records(file: Any) -> None:
    """Refuse compressed records: torch.save writes none, and a small file could expand to any size."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise ValueError('packed records')
    if hasattr(file, 'seek'):
        file.seek(0)


def _load_safetensors(path: str, map_location: Any) -> dict:
    device = str(map_location) if isinstance(map_location, (str, torch.device)) else 'cpu'
    if not Path(path).is_file():
        raise FileNotFoundError(2, 'No such file or directory', path)
    try:
        with safe_open(path, framework='pt', device=device) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
            meta = json.loads((file.metadata() or {}).get('dataset_meta', 'null'))
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f'{path}: it is no safetensors file or incomplete ({error})') from error
    return dict(meta={} if meta is None else dict(dataset_meta=meta), state_dict=tensors)


# ------------------------------------------------------------------------------------------------------------ writing
def save_safetensors(checkpoint: dict, path: str | Path) -> None:
    """Save weights as safetensors, which cannot hold code.

    Args:
        checkpoint: ``state_dict``; of ``meta`` the ``dataset_meta`` (names of classes) is kept, as JSON.
        path: the file.
    """
    meta = (checkpoint.get('meta') or {}).get('dataset_meta')
    # Tensors that share memory are written one by one.
    tensors = {name: value.contiguous().clone() for name, value in checkpoint['state_dict'].items()}
    metadata = {'format': 'pt'}
    if meta is not None:
        metadata['dataset_meta'] = mmengine.dump(meta, file_format='json')
    save_file(tensors, str(path), metadata)


# -------------------------------------------------------------------------------------------------------- downloading
def load_url(
    url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True, **unused: Any
) -> Any:
    """Download a checkpoint, or take what was downloaded before, and read it as :func:`load` does.

    Args:
        url: its address. A name that ends in ``-`` and eight or more digits of the file's SHA-256 is held to them.
        model_dir: where downloads are kept, by default PyTorch's ``hub/checkpoints``; those without a SHA-256 in their
            names in a folder for each address in it, since others may have the same name.
        map_location: as in ``torch.load``.
        progress: whether to show a bar.
        **unused: of ``torch.hub``.

    Raises:
        CheckpointError: the file was cut off or changed, or is no checkpoint; it is not kept then.
        OSError: it cannot be downloaded.
    """
    name = os.path.basename(urlparse(url).path)
    if name in ('', '.', '..'):
        raise CheckpointError(f'{url}: the address names no file')
    folder = Path(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    if not _HASH.search(name):
        folder /= hashlib.sha256(url.encode()).hexdigest()[:16]
    path = folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            download(url, path, progress)
        except DownloadError as error:
            raise CheckpointError(f'{path}: {error}, from {url}; it was removed, try again') from error
        except OSError as error:
            error.filename = error.filename or url
            raise
    _check_hash(path, url)
    try:
        return load(str(path), map_location)
    except UnsafeCheckpointError:  # the file is whole
        raise
    except CheckpointError as error:
        path.unlink(missing_ok=True)
        raise CheckpointError(f'{error}; the download from {url} was removed') from error


def _check_hash(path: Path, url: str) -> None:
    named = _HASH.search(path.name)
    if named is None:
        return
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while data := file.read(1 << 20):
            digest.update(data)
    if not digest.hexdigest().startswith(named[1]):
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f'{path}: its SHA-256 begins with {digest.hexdigest()[: len(named[1])]} and not as its name says, it was '
            f'changed or cut off; the download from {url} was removed, try again'
        )
