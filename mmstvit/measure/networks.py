"""Networks of all toolboxes and of timm by a short name, and random inputs for them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import MMLogger

from ..apis.configs import find_config
from ..apis.models import TOOLBOXES, get_model, read_valid_config, toolbox_of
from ..apis.pipelines import channels_of, test_dataset_of
from ..compat.requires import require
from ..errors import UsageError, one_line, suggest
from ..model_index import read_yaml, top1_of
from ..models import reduce_by_text
from ..registry import type_name

SPECS = (
    'CONFIG is the path of a config or a work dir, its path below configs/, or a name of the model index; '
    'mmpretrain:NAME, mmdet:NAME, mmseg:NAME and mmaction:NAME are configs of those packages, by file name without '
    '.py; '
    'timm:NAME is one of timm. CONFIG+METHOD:OPTIONS reduces its tokens, e.g. timm:deit_small_patch16_224+tome:r=13.'
)


@dataclass
class Network:
    """A built network with random weights, in evaluation mode.

    Attributes:
        label: how it is called in tables.
        toolbox: ``'mmpretrain'``, ``'mmdet'``, ``'mmseg'``, ``'mmaction'``, ``'timm'``, ``'onnx'``, ``'openvino'``, or
            ``'mmstvit'``, a bare backbone of here.
        model: the toolbox's model.
        size: of its input: ``(height, width)``, for clips ``(frames, height, width)``.
        top1: its top-1 accuracy on its data set in per cent, where a metafile has it.
        channels: of its input.
        stated: its multiply-adds at that size and its parameters, where the file tells them and they cannot be counted.
        runtime: that runs an exported file, with its version.
        backend: that it is compared in, where there are several, e.g. ``'eager'``.
        compiled: whether it is compiled, be the others or not.
    """

    label: str
    toolbox: str
    model: nn.Module
    size: tuple[int, ...]
    top1: float | None = None
    channels: int = 3
    stated: tuple[int, int] | None = None
    runtime: str | None = None
    backend: str | None = None
    compiled: bool = False

    @property
    def exported(self) -> bool:
        """Whether it is an exported file: no module, and there are no parts of it."""
        return self.runtime is not None

    @property
    def has_backbone(self) -> bool:
        """Whether the backbone can be run alone: timm's models have no such part, exported files may be of it."""
        return hasattr(self.model, 'backbone') or self.exported

    def part(self, name: str) -> nn.Module:
        """Return the ``'model'``, or its ``'backbone'`` alone; an exported file is of the part that is wanted."""
        return self.model.get_submodule('backbone') if name == 'backbone' and not self.exported else self.model


def quieten() -> None:
    """Silence what the toolboxes log while networks are built."""
    MMLogger.get_current_instance().setLevel(logging.ERROR)


def load_network(spec: str) -> Network:
    """Build a network from its short name, see ``SPECS``.

    Raises:
        mmstvit.errors.UsageError: there is no such network, or its tokens cannot be reduced so.
        ImportError: its toolbox is not installed.
    """
    spec, _, reduction = spec.partition('+')
    network = _load_network(spec)
    return reduce_network(network, reduction) if reduction else network


def reduce_network(network: Network, reduction: str) -> Network:
    """Reduce the tokens of a network, in place, as :func:`.reduce_by_text` does.

    Raises:
        mmstvit.errors.UsageError: they cannot be reduced so.
    """
    try:
        reduce_by_text(network.model, reduction)
    except ValueError as error:
        raise UsageError(f'{network.label}+{reduction}: {one_line(error)}') from error
    network.label += f'+{reduction}'
    network.top1 = None
    return network


def _load_network(spec: str) -> Network:
    package, _, name = spec.partition(':')
    if package == 'timm' and name:
        return _from_timm(name)
    if package in TOOLBOXES and name:
        path = _config_of_package(package, name)
    else:
        path = find_config(spec)
    network = network_of(read_valid_config(path), spec if name else path.stem)
    network.top1 = _top1(path)
    return network


def network_of(cfg: Config, label: str, model: nn.Module | None = None) -> Network:
    """Build the network of a config.

    Args:
        cfg: the config.
        label: how it is called.
        model: the toolbox's model where it is built already, by default one with random weights.
    """
    model = get_model(cfg) if model is None else model
    return Network(label, toolbox_of(cfg), model, default_size(cfg), channels=channels_of(cfg))


def _from_timm(name: str) -> Network:
    timm = require('timm', 'analysis', f'timm:{name}')
    if not timm.is_model(name):
        raise UsageError(f'timm has no model {name}{suggest(name, timm.list_models())}')
    model = timm.create_model(name, pretrained=False).eval()
    channels, *size = model.pretrained_cfg['input_size']
    return Network(f'timm:{name}', 'timm', model, tuple(size), channels=channels)


def _config_of_package(package: str, name: str) -> Path:
    """Find a config file of an OpenMMLab package by its name, or by its path below ``configs``."""
    require(package, TOOLBOXES[package], f'{package}:{name}')
    spec: Any = find_spec(package)
    root = Path(spec.origin).parent / '.mim' / 'configs'
    stem = name.removesuffix('.py')
    configs = {p.stem: p for p in root.rglob('*.py') if '_base_' not in p.parts}
    path = root / f'{stem}.py' if '/' in stem else configs.get(stem)
    if path is None or not path.is_file():
        raise UsageError(f'{package} has no config {name}{suggest(stem, configs)}')
    return path


def _top1(config: Path) -> float | None:
    """Read the top-1 accuracy from the metafile beside a config."""
    metafile = config.parent / 'metafile.yml'
    if not metafile.is_file():
        return None
    models = read_yaml(metafile).get('Models', ())
    return next((top1_of(entry) for entry in models if Path(entry.get('Config', '')).name == config.name), None)


def default_size(cfg: Config) -> tuple[int, ...]:
    """Return the input size that a config's test pipeline leads to; of a detector, the largest.

    Returns:
        (height, width), of clips (frames, height, width); nothing where it depends on the input.
    """
    try:
        steps = test_dataset_of(cfg).pipeline
    except UsageError:
        return ()
    size: tuple[int, ...] = ()  # (width, height)
    for step in steps:
        side = step.get('crop_size') or step.get('scale')
        if side is not None:
            size = (side, side) if isinstance(side, int) else tuple(side)
            if -1 in size or type_name(step) == 'ResizeEdge':
                size = ()
    if not size:
        return ()
    if cfg.default_scope == 'mmdet':
        divisor = (cfg.model.get('data_preprocessor') or {}).get('pad_size_divisor', 1)
        return tuple(-(-n // divisor) * divisor for n in sorted(size))
    if cfg.default_scope == 'mmaction':
        sampled: dict = next((step for step in steps if 'clip_len' in step), {})
        frames = sampled.get('clip_len', 1)
        return (frames if frames > 1 else sampled.get('num_clips', 1), *size[::-1])
    return size[::-1]


def input_shape(network: Network, shape: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape (channels, ...) of one input, by default as in the config's test pipeline.

    Args:
        network: whose input it is.
        shape: ``H W`` of images; ``T H W`` or ``C T H W`` of clips; ``None`` for the default.

    Raises:
        mmstvit.errors.UsageError: the numbers do not fit the network.
    """
    size = tuple(shape or network.size)
    video = network.toolbox == 'mmaction' or len(network.size) == 3
    if not size:
        raise UsageError(f'{network.label} has no input size in its test pipeline: give --shape')
    if len(size) not in ((3, 4) if video else (2,)) or min(size) < 1:
        form = 'T H W or C T H W for clips' if video else 'H W for images'
        raise UsageError(f'--shape {" ".join(map(str, size))} does not fit {network.label}: give {form}')
    return size if len(size) == 4 else (network.channels, *size)
