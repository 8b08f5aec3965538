"""Load weights into models, and report what cannot be read or is of another model in one line."""

from pathlib import Path

import torch
from mmengine.runner.checkpoint import _load_checkpoint_to_model

from ..engine.loading import must_fit, read_checkpoint
from ..errors import UsageError
from ..io.checkpoints import CheckpointError


class CheckpointAccessError(UsageError, OSError):
    """A checkpoint that cannot be opened or downloaded; the message is one line that names it."""


class CheckpointNotFoundError(CheckpointAccessError, FileNotFoundError):
    """A checkpoint that is not there."""


def check_checkpoint(path: str | None) -> None:
    """Refuse a local checkpoint that is not there; other schemes are left to mmengine.

    Raises:
        CheckpointNotFoundError: as said.
    """
    if path is not None and '://' not in path and not Path(path).expanduser().is_file():
        raise CheckpointNotFoundError(f'there is no checkpoint {path}: give the path of a file or a URL')


def load_weights(model: torch.nn.Module, filename: str) -> dict:
    """Load a checkpoint into a model that is to be used as it is then, and return the checkpoint.

    Raises:
        CheckpointError: it is broken, could run code, or is of another model.
        CheckpointAccessError: it is not there, or cannot be opened or downloaded.
    """
    check_checkpoint(filename)
    try:
        checkpoint = read_checkpoint(filename, map_location='cpu')
        with must_fit(model, filename, 'test') as seen:
            seen['read'] = True
            _load_checkpoint_to_model(model, checkpoint)
    except UsageError as error:
        cause = error.__cause__
        kind = type(cause) if isinstance(cause, CheckpointError) else CheckpointError
        raise (CheckpointAccessError if isinstance(cause, OSError) else kind)(str(error)) from cause
    return checkpoint
