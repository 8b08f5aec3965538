"""Load weights into models, and report what cannot be read or is of another model in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner.checkpoint import _load_checkpoint_to_model

from ..converters.published import parts_of_checkpoint
from ..engine.loading import must_fit, read_checkpoint
from ..errors import UsageError
from ..io.checkpoints import CheckpointError
from ..paths import is_address
from ..registry import MODELS, resolve_type
from .pipelines import backbone_of


class CheckpointAccessError(UsageError, OSError):
    """A checkpoint that cannot be opened or downloaded; the message is one line that names it."""


class CheckpointNotFoundError(CheckpointAccessError, FileNotFoundError):
    """A checkpoint that is not there."""


def check_checkpoint(path: str | None) -> None:
    """Refuse a local checkpoint that is not there; other schemes are left to mmengine.

    Raises:
        CheckpointNotFoundError: as said.
    """
    if path is not None and not is_address(path) and not Path(path).expanduser().is_file():
        raise CheckpointNotFoundError(f'there is no checkpoint {path}: give the path of a file or a URL')


def read_weights(filename: str) -> dict:
    """Read a checkpoint.

    Raises:
        CheckpointError: it is broken, or could run code.
        CheckpointAccessError: it is not there, or cannot be opened or downloaded.
    """
    check_checkpoint(filename)
    with _checkpoint_errors():
        return read_checkpoint(filename, map_location='cpu')


def load_weights(model: torch.nn.Module, filename: str, checkpoint: dict) -> None:
    """Load a checkpoint into a model that is to be used as it is then.

    Args:
        model: whose weights they become.
        filename: of the checkpoint, for messages.
        checkpoint: what :func:`read_weights` gave.

    Raises:
        CheckpointError: it is of another model.
    """
    with _checkpoint_errors(), must_fit(model, filename, 'test') as seen:
        seen['read'] = True
        _load_checkpoint_to_model(model, checkpoint)


@contextmanager
def _checkpoint_errors() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        cause = error.__cause__
        kind = type(cause) if isinstance(cause, CheckpointError) else CheckpointError
        raise (CheckpointAccessError if isinstance(cause, OSError) else kind)(str(error)) from cause


def set_options_of(checkpoint: dict, cfg: Config) -> None:
    """Add the parts that a checkpoint has to the backbone of a config, where it says nothing about them.

    Args:
        checkpoint: what :func:`read_weights` gave, in any of the names that are known.
        cfg: of the model; changed in place.
    """
    backbone = backbone_of(cfg)
    kind = resolve_type(backbone.get('type'), MODELS, cfg.get('default_scope'))
    groups = [backbone, *(part for part in backbone.values() if isinstance(part, dict))]
    options = {
        name: value
        for name, value in parts_of_checkpoint(checkpoint).items()
        if name in getattr(kind, 'flat_options', ()) and not any(name in group for group in groups)
    }
    if options:
        backbone.update(options)
        text = ', '.join(f'{name}={value!r}' for name, value in options.items())
        print_log(f'{kind.__name__}: {text}, as the checkpoint has it', logger='current')
