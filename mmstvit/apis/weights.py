"""Load weights into models, and report what cannot be read or is of another model in one line."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_to_model

from ..converters.published import unwrap
from ..errors import UsageError, one_line
from ..io.checkpoints import CheckpointError

# Shares of a model's tensors that a checkpoint must fill. Training may begin from a part, e.g. a backbone below a
# large new head; a test of a model that is mostly random numbers means nothing.
_LEAST = {'train': 0.1, 'test': 0.5}


class CheckpointAccessError(UsageError, OSError):
    """A checkpoint that cannot be opened or downloaded; its text is one line that names it."""


class CheckpointNotFoundError(CheckpointAccessError, FileNotFoundError):
    """A checkpoint that is not there."""


def check_checkpoint(path: str | None) -> None:
    """Refuse a local checkpoint that is not there; other schemes are left to mmengine.

    Raises:
        CheckpointNotFoundError: as said.
    """
    if path is not None and '://' not in path and not Path(path).expanduser().is_file():
        raise CheckpointNotFoundError(f'there is no checkpoint {path}: give the path of a file or a URL')


@contextlib.contextmanager
def clear_checkpoint_errors(runner: Runner, purpose: str) -> Iterator[None]:
    """While it is open, a checkpoint that cannot be read or does not fit raises :class:`UsageError` with its name.

    Args:
        runner: its ``load_from`` must fit the model; ``init_cfg`` of a part of the model must be readable.
        purpose: ``'train'`` or ``'test'``.
    """
    loader = getattr(runner, 'strategy', runner)  # the FlexibleRunner leaves loading to its strategy
    original, load = CheckpointLoader.__dict__['load_checkpoint'], loader.load_checkpoint

    def load_fitting(filename: str, *args: Any, **kwargs: Any) -> dict:
        # Where the weights are sharded, they are loaded by way of a plain model.
        model = loader.plain if hasattr(loader, 'plain') else unwrap(loader.model)
        with _observe_loading(model) as seen:
            try:
                checkpoint = load(filename, *args, **kwargs)
            except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise UsageError(f'{filename} does not fit: {one_line(error)}') from error
        _check_fit(seen, model, filename, purpose)
        if runner._resume:
            _check_state(checkpoint, filename)
        return checkpoint

    CheckpointLoader.load_checkpoint = staticmethod(read_checkpoint)
    loader.load_checkpoint = load_fitting
    try:
        yield
    finally:
        CheckpointLoader.load_checkpoint = original
        del loader.load_checkpoint


def load_weights(model: torch.nn.Module, filename: str) -> dict:
    """Load a checkpoint into a model that is to be used as it is then, and return the checkpoint.

    Raises:
        CheckpointError: it is broken, could run code, or is of another model.
        CheckpointAccessError: it is not there, or cannot be opened or downloaded.
    """
    check_checkpoint(filename)
    checkpoint = _read(filename, 'cpu')
    with _observe_loading(model) as seen:
        try:
            _load_checkpoint_to_model(model, checkpoint)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f'{filename} does not fit: {one_line(error)}') from error
    _check_fit(seen, model, filename, 'test')
    return checkpoint


_mmengine_read = CheckpointLoader.load_checkpoint


def read_checkpoint(filename: str, map_location: Any = None, logger: str = 'current') -> dict:
    """Read a checkpoint by mmengine's loader; errors are a plain :class:`UsageError` that names the file."""
    try:
        return _read(filename, map_location, logger)
    except (CheckpointError, CheckpointAccessError) as error:
        raise UsageError(str(error)) from error


def _read(filename: str, map_location: Any = None, logger: str = 'current') -> dict:
    """Read a checkpoint by mmengine's loader, with errors that name the file, whatever a broken file raises."""
    try:
        checkpoint = _mmengine_read(filename, map_location, logger)
    except CheckpointError as error:
        raise type(error)(f'cannot read the checkpoint {error}') from error
    except Exception as error:
        kind = CheckpointAccessError if isinstance(error, OSError) else CheckpointError
        raise kind(f'cannot read the checkpoint {filename}: {_why(filename, error)}') from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'{filename} is no checkpoint: it holds a {type(checkpoint).__name__} and no weights')
    return checkpoint


def _why(filename: str, error: Exception) -> str:
    if isinstance(error, (URLError, ConnectionError, TimeoutError)):
        return f'{one_line(error)}; check the address and the network, or download it elsewhere and give its path'
    if isinstance(error, (OSError, ImportError)):
        return one_line(error)
    return f'{one_line(error)} ({type(error).__name__})'


@contextlib.contextmanager
def _observe_loading(model: torch.nn.Module) -> Iterator[dict]:
    """Collect the names in the file, and those that are missing or of another shape.

    mmengine logs these and goes on. It fills the lists that it hands to torch's hooks, the outermost one's included.
    """
    seen: dict = {}

    def hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        seen.update(names=list(state_dict), missing=missing_keys, errors=error_msgs)

    handle = model._register_load_state_dict_pre_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def _check_fit(seen: dict, model: torch.nn.Module, filename: str, purpose: str) -> None:
    own = {name for name in model.state_dict() if not name.endswith('num_batches_tracked')}
    clashing = [match[1] for line in seen['errors'] if (match := re.match(r'size mismatch for (\S+):', line))]
    filled = own - set(seen['missing']) - set(clashing)
    if len(filled) < _LEAST[purpose] * len(own):
        raise CheckpointError(
            f"the checkpoint {filename} is of another model: {len(filled)} of the config's {len(own)} tensors match in "
            f'name and shape; its names are {", ".join(seen["names"][:3])} ...'
        )
    if clashing and purpose == 'test':
        raise CheckpointError(
            f'the checkpoint {filename} is of another model: {", ".join(clashing[:3])} '
            f'{"has" if len(clashing) == 1 else "have"} another shape than the config says'
        )


def _check_state(checkpoint: dict, filename: str) -> None:
    if not {'epoch', 'iter'} <= set(checkpoint.get('meta') or ()) or 'message_hub' not in checkpoint:
        raise UsageError(
            f'{filename} holds weights and no state of training to resume: start from its weights with '
            f'--cfg-options load_from={filename}'
        )
