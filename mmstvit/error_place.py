"""Find where in a config an exception comes from: a part that was built, a layer, transform, metric or hook."""

import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from torch import nn

from .registry import type_name


def place_of(error: BaseException) -> str | None:
    """Return the key in the config and the class of what raised, or the class alone; ``None`` if it is not known."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    configs = [frame.f_locals.get('cfg') for frame in frames if frame.f_code.co_name == 'build_from_cfg']
    building = [part for part in configs if isinstance(part, dict) and part.get('type')]
    if building:
        return _named(_key_of(building[-1], frames), type_name(building[-1]))
    transform = getattr(sys.modules.get('mmcv.transforms'), 'BaseTransform', ())
    kinds = {'transform': transform, 'metric': BaseMetric, 'hook': Hook, 'data set': BaseDataset, 'layer': nn.Module}
    for frame in reversed(frames):
        owner: Any = frame.f_locals.get('self')
        kind = next((name for name, cls in kinds.items() if isinstance(owner, cls)), None)
        if kind == 'layer':
            return _named(_layer_name(owner, frames), type(owner).__name__)
        if kind:
            return f'the {kind} {type(owner).__name__}'
    return None


def _named(key: str | None, cls: str) -> str:
    return f'{key} ({cls})' if key else cls


def _key_of(part: dict, frames: list[FrameType]) -> str | None:
    """The dotted name of a part of the config of the command: that of its type, where several have it the equal one."""
    whole: Any = next((frame.f_locals['cfg'] for frame in frames if isinstance(frame.f_locals.get('cfg'), Config)), {})
    alike = [(key, other) for key, other in _parts(whole) if type_name(other) == type_name(part)]
    equal = [key for key, other in alike if other == part]
    return equal[0] if equal else alike[0][0] if len(alike) == 1 else None


def _parts(whole: Any, key: str = '') -> Iterator[tuple[str, dict]]:
    """All dicts with a type in a config, and their dotted names."""
    entries = whole.items() if hasattr(whole, 'items') else enumerate(whole) if isinstance(whole, (list, tuple)) else ()
    for name, value in entries:
        if isinstance(value, dict) and value.get('type'):
            yield f'{key}{name}', value
        yield from _parts(value, f'{key}{name}.')


def _layer_name(layer: nn.Module, frames: list[FrameType]) -> str | None:
    """The name of a layer in the outermost model that ran."""
    owners = [frame.f_locals.get('self') for frame in frames]
    model = next(owner for owner in owners if isinstance(owner, nn.Module))
    return next((f'model.{name}'.rstrip('.') for name, module in model.named_modules() if module is layer), None)
