"""Loading checkpoints in the commands: what cannot be read, and what belongs to another model, is said in one line."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner.checkpoint import _load_checkpoint_to_model

from ..engine.loading import must_fit, read_checkpoint
from ..errors import UsageError
from ..io.checkpoints import trust_checkpoints
from .models import get_model, model_index, published_weights, scope_of


def check_checkpoint(path: str | None) -> None:
    """Refuse a local checkpoint that is not there; other schemes are left to mmengine."""
    if path is not None and '://' not in path and not Path(path).expanduser().is_file():
        raise UsageError(f'there is no checkpoint {path}: give the path of a file or a URL')


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
    with must_fit(model, filename, 'test') as seen:
        seen['read'] = True
        _load_checkpoint_to_model(model, checkpoint)
    return checkpoint
