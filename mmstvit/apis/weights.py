"""Loading checkpoints in the commands: what cannot be read, and what belongs to another model, is said in one line."""

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_to_model

from ..converters.published import unwrap
from ..errors import UsageError, one_line
from ..io.checkpoints import CheckpointError, trust_checkpoints
from .models import get_model, model_index, published_weights, scope_of

# Shares of a model's tensors that a checkpoint must fill. Training may begin from a part, e.g. a backbone below a
# large new head; a test of a model that is mostly random numbers means nothing.
_LEAST = {'train': 0.1, 'test': 0.5}


def check_checkpoint(path: str | None) -> None:
    """Refuse a local checkpoint that is not there; other schemes are left to mmengine."""
    if path is not None and '://' not in path and not Path(path).expanduser().is_file():
        raise UsageError(f'there is no checkpoint {path}: give the path of a file or a URL')


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


def chosen_weights(given: str | None, model: str, config: Path) -> str:
    """The checkpoint that was given, or else the address of what is published for the model.

    Args:
        given: a path or URL.
        model: a name of the model index, or what the config was found by.
        config: the model's config.

    Raises:
        ValueError: none was given, and none is published.
    """
    return given or published_weights(model if model in model_index() else config)


def untrained_model(cfg: Config, device: str = 'cpu') -> torch.nn.Module:
    """The model of a config with random weights."""
    with warnings.catch_warnings(record=True):  # mmdet tells that there are no weights
        return get_model(cfg, device=device)


def load_model(cfg: Config, checkpoint: str, device: str = 'cpu', trust: bool = False) -> torch.nn.Module:
    """The model of a config with the weights of a checkpoint, to be used as it is then; see :func:`classes_of`.

    Args:
        cfg: of any of the three toolboxes.
        checkpoint: a path or URL.
        device: where to put it.
        trust: whether code in the checkpoint may run.

    Raises:
        UsageError: the checkpoint cannot be read, or is of another model.
    """
    model = untrained_model(cfg, device)
    with trust_checkpoints(trust):
        loaded = load_weights(model, checkpoint)
    model.dataset_meta = dict(getattr(model, 'dataset_meta', None) or {}, classes=class_names(cfg, loaded))
    if scope_of(model) == 'mmpretrain':
        model._dataset_meta = model.dataset_meta  # where its inferencer looks
    return model


def class_names(cfg: Config, checkpoint: dict) -> list[str] | None:
    """Names of the classes: those of the checkpoint, or else of the config's test data set."""
    dataset = cfg.test_dataloader.dataset
    known = (checkpoint.get('meta') or {}).get('dataset_meta') or dataset.get('metainfo')
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        names = (known or getattr(registry.get(dataset.type), 'METAINFO', {})).get('classes')
    return None if names is None else [str(name) for name in names]


def classes_of(model: torch.nn.Module) -> Sequence[str] | None:
    """Names of the classes that came with the weights of :func:`load_model`, or with the data set of the config."""
    return (getattr(model, 'dataset_meta', None) or {}).get('classes')


def load_weights(model: torch.nn.Module, filename: str) -> dict:
    """Load a checkpoint into a model that is to be used as it is then, and return the checkpoint.

    Raises:
        UsageError: it cannot be read, or is of another model.
    """
    checkpoint = read_checkpoint(filename, map_location='cpu')
    with _observe_loading(model) as seen:
        try:
            _load_checkpoint_to_model(model, checkpoint)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UsageError(f'{filename} does not fit: {one_line(error)}') from error
    _check_fit(seen, model, filename, 'test')
    return checkpoint


_mmengine_read = CheckpointLoader.load_checkpoint


def read_checkpoint(filename: str, map_location: Any = None, logger: str = 'current') -> dict:
    """mmengine's loader, with errors that name the file. Whatever a broken file raises, it is the file's fault."""
    try:
        checkpoint = _mmengine_read(filename, map_location, logger)
    except CheckpointError as error:
        raise UsageError(f'cannot read the checkpoint {error}') from error
    except Exception as error:
        raise UsageError(f'cannot read the checkpoint {filename}: {_why(filename, error)}') from error
    if not isinstance(checkpoint, dict):
        raise UsageError(f'{filename} is no checkpoint: it holds a {type(checkpoint).__name__} and no weights')
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
        raise UsageError(
            f"the checkpoint {filename} is of another model: {len(filled)} of the config's {len(own)} tensors match in "
            f'name and shape; its names are {", ".join(seen["names"][:3])} ...'
        )
    if clashing and purpose == 'test':
        raise UsageError(
            f'the checkpoint {filename} is of another model: {", ".join(clashing[:3])} '
            f'{"has" if len(clashing) == 1 else "have"} another shape than the config says'
        )


def _check_state(checkpoint: dict, filename: str) -> None:
    if not {'epoch', 'iter'} <= set(checkpoint.get('meta') or ()) or 'message_hub' not in checkpoint:
        raise UsageError(
            f'{filename} holds weights and no state of training to resume: start from its weights with '
            f'--cfg-options load_from={filename}'
        )
