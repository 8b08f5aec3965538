"""Recording of token maps with PyTorch's forward hooks.

The hooks are there for one forward pass. The maps are computed beside it, by :meth:`.TokenMapStep.token_map`.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from ..apis.inference import inference_model
from ..layers.encoder import Encoder
from ..layers.layout import TokenLayout
from ..layers.steps import Generation, TokenMapStep
from ..models.backbones.base import Backbone
from .maps import LayerMaps, TokenMaps


def token_maps(model: nn.Module, image: str | PathLike | np.ndarray | Tensor, view: int = 0) -> TokenMaps:
    """Compute the token maps of a model for one image or clip.

    Args:
        model: a model of :func:`mmstvit.get_model`; for a tensor, any model with one of mmstvit's backbones in it, or
            the backbone.
        image: what :func:`mmstvit.inference_model` takes: an image's path or array, a clip's path; or a tensor
            (B, channels, *size) as the backbone takes it, which alone is run, in the mode that the model is in.
        view: which of the clips and crops that the test pipeline takes of a video, or of a batch, counted from 0.

    Returns:
        A :class:`.TokenMaps`: the :class:`.LayerMaps` of each layer of the STGM and of each recovery, in the backbone
        or in a neck :class:`.TokenRecovery`.

    Raises:
        ValueError: the model has no semantic tokens, or there is no such view.
    """
    with recording(model, view) as recorder:
        if isinstance(image, Tensor):
            result = None
            with torch.no_grad():
                recorder.backbone(image)
        else:
            result = inference_model(model, image)
    return recorder.maps(result)


def has_semantic_tokens(model: nn.Module) -> bool:
    """Return whether a model has one backbone with semantic tokens, whose maps can be recorded."""
    try:
        Recorder(model).remove()
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def recording(model: nn.Module, view: int = 0) -> Iterator['Recorder']:
    """Context manager that records the token maps of forward passes of ``model``.

    Args:
        model: one with a single backbone that has semantic tokens.
        view: which sample of those that the backbone gets.

    Raises:
        ValueError: the model has no semantic tokens.
    """
    recorder = Recorder(model, view)
    try:
        # Where the model is compiled, its graph may have been traced without the hooks.
        with torch.compiler.set_stance('force_eager'):
            yield recorder
    finally:
        recorder.remove()


class Recorder:
    """Forward hooks in a model and what they recorded; see :func:`recording`.

    Attributes:
        backbone: the backbone with semantic tokens.
        encoder: the part of it that makes them.
        inputs: the sample as the backbone got it, (1, channels, *size); ``None`` before.
        layout: how its tokens are laid out; ``None`` before.
    """

    def __init__(self, model: nn.Module, view: int = 0) -> None:
        backbones = [
            (module, encoder)
            for module in model.modules()
            if isinstance(module, Backbone)
            for encoder in module.modules()
            if isinstance(encoder, Encoder) and any(isinstance(step, Generation) for step in encoder.steps)
        ]
        if len(backbones) != 1:
            number = f'{len(backbones)} backbones with' if backbones else 'no'
            raise ValueError(
                f'{type(model).__name__} has {number} semantic tokens: token maps are of a model with one backbone of '
                'mmstvit whose semantic_grid or semantic_size is not None'
            )
        self.backbone, self.encoder = backbones[0]
        self.view = view
        self.inputs: Any = None
        self.layout: Any = None
        self._raw: Any = None
        self._seen, self._unit = 0, 0
        self._index: slice | None = None
        self._layers: list[Any] = []
        self._handles = [self.backbone.register_forward_pre_hook(self._on_backbone)]
        for name, module in model.named_modules():
            if isinstance(module, BaseDataPreprocessor):
                self._handles.append(module.register_forward_pre_hook(self._on_preprocessor))
            elif isinstance(module, TokenMapStep):
                layer = re.sub(r'\bstep(s?)(?=(\.\d+)?$)', r'layer\1', name)
                self._handles.append(module.register_forward_pre_hook(partial(self._on_step, layer)))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _on_preprocessor(self, module: nn.Module, args: tuple) -> None:
        self._raw = args[0]['inputs'][0]

    def _on_backbone(self, module: nn.Module, args: tuple) -> None:
        # mmaction2 can bring the views of a clip one after the other.
        batch = args[0]
        index = self.view - self._seen
        self._seen += len(batch)
        self._index = slice(index, index + 1) if 0 <= index < len(batch) else None
        if self._index is not None:
            self.inputs = batch[self._index].detach()

    def _on_step(self, name: str, step: TokenMapStep, args: tuple) -> None:
        if self._index is None:
            return
        block, tokens = args
        layout = step.operands(tokens)[0]
        if self.layout is None:
            self.layout = layout
        elif (layout.grid, layout.cells) != (self.layout.grid, self.layout.cells):
            raise ValueError(
                f'the neck recovers {layout.grid} image tokens from {layout.cells} semantic ones, and the backbone has '
                f'{self.layout.cells} of {self.layout.grid}: token maps are for a neck on its own maps'
            )
        self._unit += isinstance(step, Generation)
        image = None if tokens.image is None else tokens.image[self._index]
        with torch.no_grad():
            weights = step.token_map(block, tokens._replace(x=tokens.x[self._index], image=image))[0]
        self._layers.append((name, step.role, self._unit, weights.cpu()))

    def maps(self, result: Any = None) -> TokenMaps:
        """Return the recorded token maps.

        Args:
            result: to be kept with it.

        Raises:
            ValueError: nothing was recorded, since there was no such view.
        """
        if self.inputs is None:
            raise ValueError(f'there is no view {self.view}: the network got {self._seen}, counted from 0')
        size, layout = tuple(self.inputs.shape[2:]), self.layout
        shown = torch.zeros(layout.cells, dtype=torch.bool)
        shown[tuple(slice(0, n) for n in layout.valid)] = True
        live = shown.flatten().numpy()
        cell = _pixels_of_a_cell(self.backbone, self.encoder, len(size))
        layers = []
        for name, role, unit, weights in self._layers:
            attention, share = _normalised(weights, role, layout)
            layers.append(LayerMaps(name, role, unit, attention.numpy(), share.numpy(), live, cell, size))
        image = network_input(self._raw, self.inputs[0], self.view)
        return TokenMaps(image, tuple(layout.cells), tuple(layers), result)


def _normalised(weights: Tensor, role: str, layout: TokenLayout) -> tuple[Tensor, Tensor]:
    """Normalise maps (tokens, *grid) to sum 1, and return them with the shares of the tokens."""
    tokens = math.prod(layout.cells or ())
    if role == 'recover':
        # In the published dense form a cell attends to zeros outside the image too.
        weights = weights / weights.sum(-1, keepdim=True)
        return weights.movedim(-1, 0).contiguous(), torch.ones(tokens)
    weights = weights.reshape(tokens, -1)
    share = weights.sum(1)
    weights = weights / share.clamp(min=torch.finfo(weights.dtype).tiny)[:, None]
    return weights.unflatten(1, layout.grid), share


def _pixels_of_a_cell(backbone: Backbone, encoder: Encoder, rank: int) -> tuple[int, ...]:
    """Return the pixels per token along each axis: those of the stem, doubled by each patch merging."""
    long = 1 << 20
    stem = backbone.patch_embed.grid_of((long,) * rank)
    merged = 1
    for stage in getattr(backbone, 'stages', ()):
        if stage.encoder is encoder:
            break
        merged *= 2
    merging = (1,) * (rank - 2) + (merged, merged)
    return tuple(round(long / cells) * m for cells, m in zip(stem, merging))


def network_input(raw: Tensor | None, inputs: Tensor, view: int) -> np.ndarray:
    """Return the network's input as an image, uint8 RGB, channels last, with its padding.

    Args:
        raw: before normalisation; ``None`` where it is not known.
        inputs: after it, (channels, *size).
        view: which view of a clip.
    """
    size = inputs.shape[1:]
    if raw is None:
        low, high = inputs.amin(), inputs.amax()
        image = ((inputs - low) / (high - low).clamp(min=1e-6) * 255).round()
    elif raw.dim() == 3:
        image = raw.flip(0)  # mmcv reads images as BGR
    else:
        image = raw[view]  # (views, channels, *size); videos are decoded to RGB
    pads = [n for have, want in zip(reversed(image.shape[1:]), reversed(size)) for n in (0, want - have)]
    image = F.pad(image, pads).movedim(0, -1)
    return image.expand(*size, 3).clamp(0, 255).to(torch.uint8).cpu().numpy()
