"""Load checkpoints: what cannot be read, and what belongs to another model, is reported in one line with its name."""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any
from urllib.error import URLError

import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader

from ..converters.published import unwrap
from ..converters.wrappers import choice
from ..errors import UsageError, one_line
from ..io.checkpoints import CheckpointError
from ..registry import entries_of

# Shares of the weights that must fit: for a test of the model's, since one of mostly random numbers means nothing; for
# training of the model's or the file's, since it may begin from a part, e.g. a backbone below a large new head.
_LEAST = {'train': 0.1, 'test': 0.5}


def read_checkpoint(filename: str, map_location: Any = None) -> dict:
    """Read a checkpoint with mmengine's loader; whatever a broken file raises becomes a :class:`UsageError`."""
    try:
        checkpoint = CheckpointLoader.load_checkpoint(filename, map_location)
    except Exception as error:
        raise UsageError(_unreadable(filename, error)) from error
    check_content(checkpoint, filename)
    return checkpoint


def check_content(checkpoint: Any, filename: str, resume: bool = False) -> None:
    """Raise :class:`UsageError` for what holds no weights, or no state to resume; log which of several are taken."""
    if not isinstance(checkpoint, dict):
        raise UsageError(f'{filename} is no checkpoint: it holds a {type(checkpoint).__name__} and no weights')
    if resume and not ({'epoch', 'iter'} <= set(checkpoint.get('meta') or ()) and 'message_hub' in checkpoint):
        raise UsageError(
            f'{filename} holds weights and no state of training to resume: start from its weights with '
            f'--cfg-options load_from={filename}'
        )
    if 'state_dict' in checkpoint and (line := choice(checkpoint)):  # others are seen where they are loaded
        print_log(line, logger='current')


@contextlib.contextmanager
def must_fit(model: torch.nn.Module, filename: str, purpose: str) -> Iterator[dict]:
    """While it is open, a checkpoint that cannot be read or does not fit raises :class:`UsageError` with its name.

    Args:
        model: what is loaded.
        filename: of the checkpoint.
        purpose: ``'train'`` or ``'test'``.

    Yields:
        What is known of the loading; ``'read'`` must be set in it when the file was read. mmengine logs names that are
        missing or of another shape and goes on: it fills the lists that it hands to torch's hooks, the outermost one's
        included.
    """
    seen: dict = dict(read=False, names={}, missing=[], errors=[])

    def hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        sizes = {name: getattr(value, 'shape', ()) for name, value in state_dict.items()}
        seen.update(names=sizes, missing=missing_keys, errors=error_msgs)

    handle = model.register_load_state_dict_pre_hook(hook)
    try:
        yield seen
    except UsageError:
        raise
    except Exception as error:
        if not seen['read']:
            raise UsageError(_unreadable(filename, error)) from error
        if not isinstance(error, (KeyError, TypeError, ValueError, AttributeError, RuntimeError)):
            raise
        if seen['names']:
            _check_fit(seen, model, filename, purpose)
        raise UsageError(f'{filename} does not fit: {one_line(error)}') from error
    finally:
        handle.remove()
    _check_fit(seen, model, filename, purpose)


def _unreadable(filename: str, error: Exception) -> str:
    if isinstance(error, CheckpointError):
        return f'cannot read the checkpoint {error}'
    why = ' '.join(str(error).split()) if isinstance(error, URLError) else one_line(error)
    if isinstance(error, (URLError, ConnectionError, TimeoutError)):
        why += '; check the address and the network, or download it elsewhere and give its path'
    elif not isinstance(error, (OSError, ImportError)):
        why += f' ({type(error).__name__})'
    return f'cannot read the checkpoint {filename}: {why}'


def _check_fit(seen: dict, model: torch.nn.Module, filename: str, purpose: str) -> None:
    own = {name: value.numel() for name, value in model.state_dict().items() if 'num_batches_tracked' not in name}
    clashing = [match[1] for line in seen['errors'] if (match := re.match(r'size mismatch for (\S+):', line))]
    filled = own.keys() - set(seen['missing']) - set(clashing)
    of = sum(own.values())
    if purpose == 'train':
        of = min(of, sum(math.prod(shape) for shape in seen['names'].values()))
    if sum(own[name] for name in filled) < _LEAST[purpose] * of:
        raise UsageError(
            f"the checkpoint {filename} is of another model: {len(filled)} of the config's {len(own)} tensors match in "
            f'name and shape; its names are {", ".join(list(seen["names"])[:3])} ...'
        )
    if clashing and purpose == 'test':
        raise UsageError(
            f'the checkpoint {filename} is of another model: {", ".join(clashing[:3])} '
            f'{"has" if len(clashing) == 1 else "have"} another shape than the config says'
        )


def skip_pretrained(model: torch.nn.Module | dict, start: str) -> None:
    """Remove the checkpoints of ``init_cfg`` from a model and its backbone, which others will write over.

    Args:
        model: that was built, or its config; changed in place.
        start: the checkpoint that takes their place.
    """
    model = model if isinstance(model, dict) else unwrap(model)
    for owner, name in ((model, 'the model'), (_get(model, 'backbone'), 'the backbone')):
        parts = entries_of(_get(owner, 'init_cfg'))
        files = [
            part for part in parts if isinstance(part, dict) and part.get('type') in ('Pretrained', PretrainedInit)
        ]
        if not files:
            continue
        kept = [part for part in parts if part not in files] or None
        if isinstance(owner, dict):
            owner['init_cfg'] = kept
        else:
            owner.init_cfg = kept
        print_log(f'{files[0]["checkpoint"]}, init_cfg of {name}, is not read: {start} takes its place', 'current')


def _get(owner: torch.nn.Module | dict | None, name: str) -> Any:
    return owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)
