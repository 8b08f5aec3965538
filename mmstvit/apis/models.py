"""Models by name or by config: ``get_model``.

A thin front over the toolboxes' own interfaces; the config's default scope says whose it is.
"""

import copy
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS

from ..compat.requires import require
from ..engine.terminal import import_toolbox
from ..errors import UsageError, as_usage_error, one_line, suggest
from ..io.checkpoints import CheckpointError, trust_checkpoints
from ..model_index import model_index
from ..registry import resolve_type
from .pipelines import config_of, test_dataset_of, toolbox_scope
from .weights import load_weights, read_weights, set_options_of

# default_scope of a config -> the extra of mmstvit that installs the toolbox
TOOLBOXES = {'mmpretrain': 'cls', 'mmdet': 'det', 'mmseg': 'seg', 'mmaction': 'video'}


def _read_config(model: str | PathLike | Config) -> Config:
    """Read the config of a name or a path, or copy one."""
    if isinstance(model, Config):
        return copy.deepcopy(model)
    name, index = str(model), model_index()
    if not name.endswith('.py') and name not in index:
        hint = suggest(name, index) or '; mmstvit.list_models() has the names'
        raise ValueError(f'there is no model named {name}{hint}')
    return Config.fromfile(name if name.endswith('.py') else index[name]['Config'])


def toolbox_of(cfg: Config) -> str:
    """Return the toolbox that a config is for, imported.

    Raises:
        ValueError: its ``default_scope`` is none of them.
        ImportError: the toolbox is not installed; the message says which extra installs it.
    """
    scope = cfg.get('default_scope')
    if scope not in TOOLBOXES:
        raise ValueError(f"the config's default_scope is {scope!r}, it must be one of {tuple(TOOLBOXES)}")
    require(scope, TOOLBOXES[scope], f'a config whose default_scope is {scope}')
    return scope


def read_valid_config(path: Path) -> Config:
    """Read a config of one of the toolboxes from its file.

    Raises:
        UsageError: it is none, or its toolbox or that of a ``_base_`` is not installed.
    """
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program: it may raise anything
        missing = [extra for scope, extra in TOOLBOXES.items() if str(error).startswith(scope)]
        install = f": pip install 'mmstvit[{missing[0]}]'" if isinstance(error, ImportError) and missing else ''
        line = f'{path} is no valid config: {one_line(error)} ({type(error).__name__}){install}'
        raise UsageError(line) from error
    with as_usage_error(ImportError, ValueError):
        toolbox_of(cfg)
    return cfg


def published_weights(model: str | PathLike | Config) -> str:
    """Return the address of the weights that are published for a model, or that its config begins from.

    Raises:
        ValueError: an unknown name, or there are none.
    """
    cfg = _read_config(model)
    published = {Path(entry['Config']).resolve(): entry.get('Weights') for entry in model_index().values()}
    weights = published.get(Path(cfg.filename or '').resolve()) or cfg.get('load_from')
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
        model: a name of :func:`mmstvit.list_models`, the path of a config, or a config.
        pretrained: a checkpoint's path or URL; ``True`` for the weights published under the name; ``False`` for none.
            LayerScale, registers and norms of queries and keys that it has are added to an ``STViT``, unless the config
            says otherwise, and a line tells so.
        device: where to put it; by default it stays on the CPU.
        trust_checkpoint: whether code in the checkpoint may run. Files of mmengine and the usual ones of authors are
            read without; see :mod:`mmstvit.io.checkpoints`.
        **kwargs: override settings of the config's ``model``, e.g. ``backbone=dict(stgm_layer=6)``.

    Returns:
        The toolbox's model in evaluation mode: mmpretrain's classifier, mmdet's detector, mmseg's segmentor or
        mmaction2's recogniser. Its ``dataset_meta['classes']`` has the names of the classes: of the checkpoint, or else
        of the config's test data; ``None`` where neither tells.

    Raises:
        ValueError: an unknown name, ``pretrained=True`` where no weights are published, a checkpoint that is broken,
            could run code, or is of another model: in half of the tensors, or in the shape of one. A device that this
            machine has not.
        OSError: the checkpoint is not there (``FileNotFoundError``) or cannot be downloaded.
    """
    cfg = _read_config(model)
    if pretrained is True:
        pretrained = published_weights(model)
    if kwargs:
        cfg.merge_from_dict({'model': kwargs})
    toolbox_of(cfg)  # what is not installed is told before anything is read
    device, checkpoint = chosen_device(device or 'cpu', meta=True), {}
    if pretrained:
        with trust_checkpoints(trust_checkpoint):
            checkpoint = read_weights(str(pretrained))
        set_options_of(checkpoint, cfg)
    built = _build(cfg, device)
    if pretrained:
        load_weights(built, str(pretrained), checkpoint)
    meta: Any = _dataset_meta(cfg, checkpoint)
    built.dataset_meta = built._dataset_meta = meta  # where mmpretrain's inferencer looks
    return built.eval()


def _build(cfg: Config, device: str | torch.device) -> torch.nn.Module:
    """Build the toolbox's model with random weights.

    The scope is set for the time of building alone, so that models of several toolboxes can live side by side.
    """
    scope = toolbox_of(cfg)
    import_toolbox(scope)
    if scope == 'mmpretrain':
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    else:
        for part in (cfg.model, cfg.model.get('backbone') or {}):
            if part.get('pretrained'):
                part['pretrained'] = None  # some would download it now
    with toolbox_scope(scope):
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).to(device)
    model.cfg = model._config = cfg
    model._metainfo = None  # mmpretrain's inferencer looks here
    return model


def _dataset_meta(cfg: Config, checkpoint: dict) -> dict:
    """Return names of classes, of the checkpoint or else of the config, and what else describes the data."""
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    stored = meta.get('dataset_meta') or {'classes': meta.get('CLASSES')}  # the latter of mmdet 2 and mmcls
    stored = {str(key).lower(): value for key, value in stored.items()} if isinstance(stored, dict) else {}
    names = stored.get('classes') or class_names(cfg)
    return {**stored, 'classes': None if names is None else tuple(str(name) for name in names)}


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


class DeviceError(UsageError, ValueError):
    """A device that this machine has not; the message is one line with those that it has."""


def chosen_device(device: str | torch.device | None, meta: bool = False) -> str:
    """Return the device that is named, or else a GPU where there is one.

    Args:
        device: its name.
        meta: whether it may be ``'meta'``, where there are shapes and no numbers.

    Raises:
        DeviceError: there is no such device.
    """
    if not device:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    names = ['cpu']
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator:
        names += [f'{accelerator.type}:{i}' for i in range(torch.accelerator.device_count())]
    try:
        target = torch.device(device)
    except RuntimeError:  # no kind of device has this name
        target = None
    there = target and (target.type == 'cpu' or f'{target.type}:{target.index or 0}' in names)
    if not (there or (meta and target and target.type == 'meta')):
        raise DeviceError(f'there is no device {device}: this machine has {", ".join(names)}')
    return str(device)


def scope_of(model: torch.nn.Module) -> str:
    """Return the toolbox of a model of :func:`get_model`."""
    return toolbox_of(config_of(model))
