"""Loading of published checkpoints into models, in training and testing.

A backbone that called :func:`register_published_weights` renames, resizes and judges what reaches its
``load_state_dict``. mmengine and torch hand a child module only the entries under its own name; files whose names have
no ``backbone.`` are therefore renamed one step earlier, by :func:`rename_for_model`, which
``mmstvit.compat.mmengine_checkpoint`` puts before mmengine's loading: ``init_cfg``, ``load_from``, ``tools/test.py``
and ``inference_model`` all end there.
"""

import functools
import re
from collections.abc import Sequence
from typing import cast

import torch.nn as nn
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor

from ..functional.position import resize_table
from .deit import join_tokens
from .fit import LITTLE, check_parts, report, share, some
from .inflate import bias_table_grids, inflate, resize_bias_table
from .recognise import looks_like, parts_of, recognise
from .wrappers import choice, unwrapped


def convert_published_state_dict(state_dict: dict) -> dict[str, Tensor]:
    """Convert a published state dict to the parameter names of mmstvit.

    Knows DeiT, ViT and DINOv2 in the names of their authors (also timm's), of mmpretrain and of Hugging Face, Swin and
    T2T-ViT in the first two, and the published STViT-R, for classification and detection.

    Args:
        state_dict: the weights, or a checkpoint that holds them under ``model``, ``teacher``, ``model_ema`` or another
            of the names in ``mmstvit.converters.wrappers``.

    Returns:
        A classifier's state dict, names beginning with ``backbone.`` and ``head.``.

    Raises:
        ValueError: the names belong to no layout known here.
    """
    state_dict = dict(unwrapped(state_dict))
    if layout := recognise(state_dict):
        return layout.convert(state_dict)
    raise ValueError(
        'this is no DeiT, ViT, DINOv2, Swin, STViT-R or T2T-ViT in names that are known: it looks like '
        f'{looks_like(state_dict)}; its names are {some(sorted(state_dict))}'
    )


def parts_of_checkpoint(checkpoint: dict) -> dict:
    """Return the options of :class:`.STViT` for parts that the ViT in a checkpoint has, see :func:`.parts_of`."""
    try:
        return parts_of(convert_published_state_dict(checkpoint))
    except ValueError:  # our own names, or another network: what does not fit is told where it is loaded
        return parts_of(unwrapped(checkpoint))


def register_published_weights(backbone: nn.Module, tables: Sequence[str] = ()) -> None:
    """Register a hook by which a backbone loads published files, resizes tables and inflates image weights.

    Other networks' files are refused.

    Each load logs one line: how many tensors matched, which are missing in the file, which are unexpected.

    Args:
        backbone: the module whose ``load_state_dict`` (torch's or mmengine's) is to take them.
        tables: its parameters of shape ``(1, *grid, C)`` that are interpolated where the file has another grid.
    """
    backbone.takes_published_weights = True  # type: ignore[assignment]  # plain attribute of a module
    backbone.register_load_state_dict_pre_hook(functools.partial(_load_published, tables=tables))


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers for distribution and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = cast(nn.Module, model.module)
    return model


def rename_for_model(model: nn.Module, state_dict: dict) -> dict:
    """Rename a published checkpoint for a whole model with a backbone of mmstvit.

    Args:
        model: any model.
        state_dict: what is to be loaded into it.

    Returns:
        ``state_dict`` itself where there is nothing to rename, else a new one.

    Raises:
        ValueError: the model has a backbone of ours and the file has nothing for it.
    """
    model = unwrap(model)
    parts = {
        name: part for name, part in model.named_modules() if name and getattr(part, 'takes_published_weights', False)
    }
    if parts:
        state_dict = _weights(state_dict)
    for name, part in parts.items():
        state_dict = _rename(state_dict, f'{name}.', part.state_dict())
    if parts and not any(key.startswith(tuple(f'{name}.' for name in parts)) for key in state_dict):
        what = ' and '.join(type(part).__name__ for part in parts.values())
        raise ValueError(
            f'the checkpoint is of another model: it has nothing for {what}, it looks like {looks_like(state_dict)}; '
            f'its names are {some(sorted(state_dict))}'
        )
    return state_dict


def _weights(checkpoint: dict) -> dict:
    if line := choice(checkpoint):
        print_log(line, logger='current')
    return dict(unwrapped(checkpoint))


def _rename(state_dict: dict, prefix: str, own: dict) -> dict:
    """Rename published parameters to those of a backbone under ``prefix``; others stay."""
    if share(own, (name for name in own if prefix + name in state_dict)) >= LITTLE:
        return state_dict
    weights, table = _weights(state_dict), own.get('pos_embed')
    layout = recognise(weights)
    converted = weights
    if layout:
        try:
            converted = layout.convert(weights, None if table is None else tuple(table.shape[-3:-1]))
        except ValueError:
            if table is not None:
                raise
    names = {name: name.removeprefix('backbone.') for name in converted}
    # Of the family of the backbone, whether or not all of it fits.
    akin = layout and 'encoder.layers.0.norm1.weight' in own and 'encoder.layers.0.norm1.weight' in names.values()
    if not akin and share(own, set(names.values()) & own.keys()) < LITTLE:
        return state_dict  # of another network; the report names it better by its own names
    ours = {name for name, bare in names.items() if bare in own or name.startswith('backbone.')}
    return {prefix + names[name] if name in ours else name: value for name, value in converted.items()}


def _rename_moved(state_dict: dict, prefix: str, own: dict) -> None:
    """Rename global centres that belong to another layer in the file."""
    for name in own:
        stem, separator, _ = name.partition('steps.')
        if not separator or not name.endswith('.global_centers') or prefix + name in state_dict:
            continue
        pattern = re.escape(prefix + stem) + r'steps\.\d+\.global_centers'
        theirs = [other for other in state_dict if re.fullmatch(pattern, other)]
        if len(theirs) == 1:
            state_dict[prefix + name] = state_dict.pop(theirs[0])


def _load_published(
    module: nn.Module,
    state_dict: dict,
    prefix: str,
    metadata: dict,
    strict: bool,
    missing: list,
    unexpected: list,
    errors: list,
    tables: Sequence[str],
) -> None:
    if not state_dict:
        # A child gets only the entries under its name; with none there is nothing to judge.
        return
    own = module.state_dict()
    _rename_moved(state_dict, prefix, own)
    renamed = _rename(state_dict, prefix, own)
    if renamed is not state_dict:
        state_dict.clear()
        state_dict.update(renamed)
    if 'register_tokens' in own:
        join_tokens(state_dict, prefix)
    inflate(state_dict, prefix, own, tables)
    for name in tables:
        table = state_dict.get(prefix + name)
        if table is not None and name in own and table.dim() == own[name].dim():
            state_dict[prefix + name] = resize_table(table, own[name].shape[1:-1])
    for name, grid in bias_table_grids(module):
        if prefix + name in state_dict:
            state_dict[prefix + name] = resize_bias_table(state_dict[prefix + name], grid)
    check_parts(module, state_dict, prefix, own)
    print_log(report(type(module).__name__, state_dict, prefix, own), logger='current')
