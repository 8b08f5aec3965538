"""How images are prepared for a network, as it is written into an exported file."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn as nn
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from ..apis.pipelines import channels_of, test_dataset_of
from ..registry import type_name
from ..version import __version__

# Frames of a clip are decoded to RGB, images to BGR.
_DECODED = {'mmpretrain': 'BGR', 'mmdet': 'BGR', 'mmseg': 'BGR', 'mmaction': 'RGB'}
_TASKS = {'mmdet': 'features', 'mmseg': 'segmentation'}
_PADDED = tuple(_TASKS)  # toolboxes whose images keep their aspect ratio and are padded to a fixed size
# What a step of a test pipeline is told by; the others load an image before, or pack the results after.
_SETTINGS = {
    'Resize': ('scale', 'keep_ratio', 'interpolation', 'backend'),
    'ResizeEdge': ('scale', 'edge', 'interpolation', 'backend'),
    'CenterCrop': ('crop_size',),
}


def transforms_of(cfg: Config) -> list[dict[str, Any]]:
    """Return the steps of the test pipeline between loading and packing, with all their settings.

    Of a step that is not known here only the type is told; of a clip's pipeline the steps are told as they are.
    """
    steps = [dict(step) for step in test_dataset_of(cfg).pipeline]
    if cfg.default_scope == 'mmaction':
        return steps
    settings = []
    for step in steps:
        name = type_name(step)
        if name.startswith(('Load', 'Pack')):
            continue
        if name in _SETTINGS:
            built = TRANSFORMS.build(step)
            step = {key: getattr(built, key) for key in _SETTINGS[name]}
        settings.append({**step, 'type': name} if name in _SETTINGS else {'type': name})
    return settings


def fit(transforms: list[dict], shape: tuple[int, ...]) -> list[dict]:
    """Change the steps for an image so that they lead to (height, width): a crop keeps its share of the image."""
    size, fitted = list(reversed(shape)), []
    crops = [step['crop_size'] for step in transforms if step['type'] == 'CenterCrop']
    for step in transforms:
        step = dict(step)
        if step['type'] == 'CenterCrop':
            step['crop_size'] = size
        elif step['type'] == 'ResizeEdge' and crops:
            step['scale'] = math.ceil(step['scale'] * max(n / c for n, c in zip(size, crops[-1])))
        elif step['type'] == 'Resize' and not crops:
            if step.pop('keep_ratio'):
                step = {**step, 'type': 'ResizeInto', 'scale': size}
            else:
                step = {**step, 'keep_ratio': False, 'scale': size}
        fitted.append(step)
    return fitted


def metadata_of(
    cfg: Config, model: nn.Module, classes: Sequence[str] | None, shape: tuple[int, ...] | None, explicit: bool
) -> dict[str, Any]:
    """Return the metadata of the file.

    Args:
        cfg: the config.
        model: as built.
        classes: their names.
        shape: the input size; ``None`` where it is open.
        explicit: whether it was asked for, and may be another than that of the test pipeline.
    """
    scope = cfg.default_scope
    before: Any = model.data_preprocessor
    transforms = transforms_of(cfg)
    if shape is not None and scope != 'mmaction' and (explicit or scope in _PADDED):
        transforms = fit(transforms, shape)
    flipped = getattr(before, 'to_rgb', False) or getattr(before, '_channel_conversion', False)
    order = {'BGR': 'RGB', 'RGB': 'BGR'}[_DECODED[scope]] if flipped else _DECODED[scope]
    if channels_of(cfg) == 1:
        order = 'GRAY'
    return dict(
        mmstvit_version=__version__,
        config=Path(cfg.filename or '').name,
        task=_TASKS.get(scope, 'classification'),
        classes=classes,
        layout='NCTHW' if scope == 'mmaction' else 'NCHW',
        channel_order=order,
        mean=before.mean.flatten().tolist() if before._enable_normalize else None,
        std=before.std.flatten().tolist() if before._enable_normalize else None,
        transforms=transforms,
        pad_size=list(shape) if shape is not None and scope in _PADDED else None,
        pad_size_divisor=getattr(before, 'pad_size_divisor', 1),
        pad_value=getattr(before, 'pad_value', 0),
    )
