"""Models by name or by config: ``list_models`` and ``get_model``.

A thin front over the toolboxes' own interfaces; the config's default scope says whose it is.
"""

import copy
import difflib
import fnmatch
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

from ..compat.requires import require
from ..errors import UsageError
from ..io.checkpoints import CheckpointError, trust_checkpoints
from ..paths import package_data
from ..registry import resolve_type
from .pipelines import test_dataset_of
from .scopes import toolbox_scope
from .weights import load_weights, read_weights, set_options_of

# default_scope of a config -> the extra of mmstvit that installs the toolbox
TOOLBOXES = {'mmpretrain': 'cls', 'mmdet': 'det', 'mmaction': 'video'}


def model_index() -> dict[str, dict]:
    """Read the model index: name -> entry, with the absolute path of its config."""
    root = package_data()
    entries = {}
    for metafile in mmengine.load(root / 'model-index.yml')['Import']:
        for entry in mmengine.load(root / metafile)['Models']:
            entries[entry['Name']] = {**entry, 'Config': str(root / entry['Config'])}
    return entries


def list_models(pattern: str | None = None) -> list[str]:
    """List the names of the models of mmstvit, sorted.

    Args:
        pattern: shell wildcards, e.g. ``'*stvit-s*'``; any ending matches, as in mmpretrain.
    """
    return sorted(fnmatch.filter(model_index(), '*' if pattern is None else pattern + '*'))


def _read_config(model: str | PathLike | Config) -> tuple[Config, dict]:
    """Read the config of a name, a path or a config, and its entry in the model index."""
    if isinstance(model, Config):
        return copy.deepcopy(model), {}
    name = str(model)
    if name.endswith('.py'):
        return Config.fromfile(name), {}
    index = model_index()
    if name not in index:
        near = difflib.get_close_matches(name, index, n=3)
        hint = f'did you mean {" or ".join(near)}?' if near else 'mmstvit.list_models() has the names'
        raise ValueError(f'there is no model named {name}; {hint}')
    return Config.fromfile(index[name]['Config']), index[name]


def toolbox_of(cfg: Config) -> str:
    """Return the toolbox that a config is for, imported.

    Raises:
        ValueError: its ``default_scope`` is none of the three.
        ImportError: the toolbox is not installed; the message says which extra installs it.
    """
    scope = cfg.get('default_scope')
    if scope not in TOOLBOXES:
        raise ValueError(f"the config's default_scope is {scope!r}, it must be one of {tuple(TOOLBOXES)}")
    require(scope, TOOLBOXES[scope], f'a config whose default_scope is {scope}')
    return scope


def published_weights(model: str | PathLike | Config) -> str:
    """Return the address of the weights that are published for a model, or that its config begins from.

    Raises:
        ValueError: an unknown name, or there are none.
    """
    cfg, entry = _read_config(model)
    if not entry and cfg.filename:
        path, entries = Path(cfg.filename).resolve(), model_index().values()
        entry = next((e for e in entries if e.get('Weights') and Path(e['Config']).resolve() == path), {})
    weights = entry.get('Weights') or cfg.get('load_from')
    if not weights:
        what = cfg.filename or 'this config' if isinstance(model, Config) else model
        raise CheckpointError(f'no weights are published for {what}: give a checkpoint, or pretrained=False')
    return weights


def get_model(
    model: str | PathLike | Config,
    pretrained: bool | str | PathLike = False,
    device: str | torch.device | None = None,
    trust_checkpoint: bool = False,
    **kwargs: Any,
) -> torch.nn.Module:
    """Build a model, for inference or as a part of something else.

    Args:
        model: a name of :func:`list_models`, the path of a config, or a config.
        pretrained: a checkpoint's path or URL; ``True`` for the weights published under the name; ``False`` for none.
            LayerScale, registers and norms of queries and keys that it has are added to an ``STViT``, unless the config
            says otherwise, and a line tells so.
        device: where to put it; by default it stays on the CPU.
        trust_checkpoint: whether code in the checkpoint may run. Files of mmengine and the usual ones of authors are
            read without; see :mod:`mmstvit.io.checkpoints`.
        **kwargs: override settings of the config's ``model``, e.g. ``backbone=dict(stgm_layer=6)``.

    Returns:
        The toolbox's model in evaluation mode: mmpretrain's classifier, mmdet's detector, mmaction2's recogniser. Its
        ``dataset_meta['classes']`` has the names of the classes: of the checkpoint, or else of the config's test data;
        ``None`` where neither tells.

    Raises:
        ValueError: an unknown name, ``pretrained=True`` where no weights are published, a checkpoint that is broken,
            could run code, or is of another model: in half of the tensors, or in the shape of one.
        OSError: the checkpoint is not there (``FileNotFoundError``) or cannot be downloaded.
    """
    cfg, _ = _read_config(model)
    if pretrained is True:
        pretrained = published_weights(model)
    if kwargs:
        cfg.merge_from_dict({'model': kwargs})
    toolbox_of(cfg)  # what is not installed is told before anything is read
    checkpoint = {}
    if pretrained:
        with trust_checkpoints(trust_checkpoint):
            checkpoint = read_weights(str(pretrained))
        set_options_of(checkpoint, cfg)
    built = _build(cfg, device or 'cpu')
    if pretrained:
        load_weights(built, str(pretrained), checkpoint)
    built.dataset_meta = _dataset_meta(cfg, checkpoint, getattr(built, 'dataset_meta', None) or {})
    built._dataset_meta = built.dataset_meta  # where mmpretrain's inferencer looks
    return built.eval()


def _build(cfg: Config, device: str | torch.device) -> torch.nn.Module:
    """Build the toolbox's model with random weights.

    The scope is set for the time of building alone, so that models of several toolboxes can live side by side.
    """
    scope = toolbox_of(cfg)
    with toolbox_scope(scope):
        if scope == 'mmpretrain':
            from mmpretrain.registry import MODELS

            # As mmpretrain's get_model, which takes no data set whose type is a class.
            cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
            model = MODELS.build(cfg.model).to(device)
            model._config, model._metainfo = cfg, None  # where its inferencer looks
            return model
        if scope == 'mmdet':
            from mmdet.apis import init_detector

            with warnings.catch_warnings(record=True):  # that classes are COCO's, which they need not be here
                return init_detector(cfg, device=device)
        from mmaction.apis import init_recognizer

        return init_recognizer(cfg, device=device)


def _dataset_meta(cfg: Config, checkpoint: dict, of_config: dict) -> dict:
    """Return names of classes, of the checkpoint or else of the config, and what else describes the data.

    Args:
        cfg: the config.
        checkpoint: may be empty.
        of_config: what the toolbox has found in the config; its palette comes before that of the checkpoint.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    stored = meta.get('dataset_meta') or {'classes': meta.get('CLASSES')}  # the latter of mmdet 2 and mmcls
    stored = {str(key).lower(): value for key, value in stored.items()} if isinstance(stored, dict) else {}
    of_config = {key: value for key, value in of_config.items() if stored.get(key) is None or value != 'random'}
    names = stored.get('classes') or class_names(cfg)
    return {**stored, **of_config, 'classes': None if names is None else tuple(str(name) for name in names)}


def class_names(cfg: Config) -> Sequence[str] | None:
    """Return the names of the classes of a config's test data, ``None`` where it has none."""
    try:
        dataset = test_dataset_of(cfg)
    except UsageError:
        return None
    if names := (dataset.get('metainfo') or {}).get('classes'):
        return names
    kind = resolve_type(dataset.get('type'), DATASETS, cfg.default_scope)
    return (getattr(kind, 'METAINFO', None) or {}).get('classes')


def classes_of(model: torch.nn.Module) -> Sequence[str] | None:
    """Return the names of the classes of a model of :func:`get_model`."""
    return (getattr(model, 'dataset_meta', None) or {}).get('classes')


def chosen_device(device: str | None) -> str:
    """Return the device that is named, or else a GPU where there is one."""
    return device or ('cuda' if torch.cuda.is_available() else 'cpu')


def config_of(model: torch.nn.Module) -> Config:
    """Return the config of a model of :func:`get_model`."""
    return getattr(model, '_config', None) or model.cfg


def scope_of(model: torch.nn.Module) -> str:
    """Return the toolbox of a model of :func:`get_model`."""
    return toolbox_of(config_of(model))
