"""Groups of patches that a method of token reduction has made one token, and patches that it has dropped."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from ..apis.inference import inference_model
from ..functional.reduction import Reduction, compose
from ..layers.encoder import Encoder
from ..layers.steps import ReducingStep, Step, ToMeSD
from ..layers.tokens import Tokens
from ..models.reduction import reduction_of
from .clips import evenly
from .panels import grid_of_panels, outlined, scaled, side_by_side
from .recording import network_input

_PANEL = 320  # least pixels of the shorter edge of a panel
_FRAMES = 6  # of a clip
_ACROSS = 4  # panels in a row
_ROW = 192  # least pixels of the shorter edge in a contact sheet


@dataclass(frozen=True, eq=False)
class LayerGroups:
    """What has become of the patches after one block.

    Attributes:
        block: counted from 1.
        groups: the patches along each axis, int64: the token that each is a part of, -1 for one that was dropped.
    """

    block: int
    groups: np.ndarray

    @property
    def num_tokens(self) -> int:
        """Tokens that stand for patches."""
        return len(np.unique(self.groups[self.groups >= 0]))

    @property
    def title(self) -> str:
        """Title in pictures."""
        dropped = int((self.groups < 0).sum())
        return f'after block {self.block}: {self.num_tokens} tokens' + (f', {dropped} dropped' if dropped else '')


@dataclass(frozen=True, eq=False)
class TokenGroups:
    """The groups in all blocks that reduce tokens, for one image or clip.

    Attributes:
        image: what the network saw, uint8 RGB, (height, width, 3) or (frames, height, width, 3).
        layers: in the order of the blocks.
        result: what :func:`mmstvit.inference_model` gave for the image; ``None`` for a tensor.
    """

    image: np.ndarray
    layers: tuple[LayerGroups, ...]
    result: Any = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything for ``np.savez``: ``image``, and the groups under names such as ``block4``."""
        return dict(image=self.image, **{f'block{layer.block}': layer.groups for layer in self.layers})


def token_groups(model: nn.Module, image: str | PathLike | np.ndarray | Tensor, view: int = 0) -> TokenGroups:
    """Find which patches of an image each token of a reduced model stands for, block by block.

    Args:
        model: reduced by :func:`mmstvit.reduce_`, or a backbone of here with such a ``reduce`` in its config.
        image: what :func:`mmstvit.inference_model` takes; or a tensor (B, channels, *size) as the model takes it.
        view: which image of a batch, or which of the clips and crops that the test pipeline takes of a video.

    Raises:
        ValueError: nothing is reduced in the model, or there is no such view.
    """
    raw: Any = None
    inputs: Any = None
    layers: dict[int, LayerGroups] = {}  # of several forward passes the first counts

    def on_preprocessor(module: nn.Module, args: tuple, output: dict) -> None:
        nonlocal raw, inputs
        if inputs is None:
            raw = args[0]['inputs'][0]
            # mmaction2 gives each sample an axis of views.
            inputs = output['inputs'].flatten(0, 1) if raw.dim() == 5 else output['inputs']

    def on_step(block: int, step: Step, args: tuple, output: Tokens) -> None:
        if block not in layers:
            tokens = args[1]
            if not 0 <= view < len(tokens.x):
                raise ValueError(f'there is no view {view}: the network gets {len(tokens.x)}, counted from 0')
            trace = (*tokens.trace, step.matching(tokens)) if isinstance(step, ToMeSD) else output.trace
            layers[block] = LayerGroups(block, _groups(compose(trace), output, view))

    with torch.no_grad(), contextlib.ExitStack() as stack:
        for block, step in _steps_of(model):
            stack.enter_context(step.register_forward_hook(partial(on_step, block)))
        for module in model.modules():
            if isinstance(module, BaseDataPreprocessor):
                stack.enter_context(module.register_forward_hook(on_preprocessor))
        if isinstance(image, Tensor):
            inputs, result = image, None
            model(image)
        else:
            result = inference_model(model, image)
    return TokenGroups(network_input(raw, inputs[view], view), tuple(layers.values()), result)


def _steps_of(model: nn.Module) -> list[tuple[int, Step]]:
    """Return the steps that reduce tokens, with the numbers of their blocks."""
    reduction = reduction_of(model)
    encoders = [module for module in model.modules() if isinstance(module, Encoder)]
    for steps in [reduction.transformer.steps] if reduction else [encoder.steps for encoder in encoders]:
        reducing: list[tuple[int, Step]] = [(i, s) for i, s in enumerate(steps, 1) if isinstance(s, ReducingStep)]
        if reducing:
            return reducing
    raise ValueError(
        f'{type(model).__name__} has no semantic tokens, and merges or drops none: reduce it first, with '
        'mmstvit.reduce_ or --reduce tome:r=13'
    )


def _groups(reduction: Reduction, tokens: Tokens, view: int) -> np.ndarray:
    """Return the token of each patch, -1 where it was dropped, along the axes of the patches."""
    layout, batch = tokens.layout, len(tokens.x)
    patches = layout.num_prefix + math.prod(layout.grid)
    count = reduction.merge(tokens.x.new_zeros(batch, patches, 1)).shape[1]
    shares = reduction.unmerge(torch.eye(count, device=tokens.x.device).expand(batch, -1, -1))[view]
    groups = torch.where(shares.sum(dim=-1) > 0, shares.argmax(dim=-1), -1)[layout.num_prefix :]
    return groups.unflatten(0, layout.grid).cpu().numpy()


def overlay(image: np.ndarray, groups: np.ndarray, least: int) -> np.ndarray:
    """Draw each group in the mean colour of its pixels, with an outline; what was dropped is dark.

    Args:
        image: (height, width, 3), uint8 RGB.
        groups: (rows, columns), as of :class:`LayerGroups`.
        least: pixels of the shorter edge of the picture.
    """
    image = scaled(image, least)
    rows, columns = (np.arange(n) * cells // n for n, cells in zip(image.shape, groups.shape))
    groups = groups[rows[:, None], columns]
    _, number = np.unique(groups, return_inverse=True)
    number = number.reshape(groups.shape)
    size = np.bincount(number.ravel())
    means = np.stack([np.bincount(number.ravel(), channel.ravel()) / size for channel in np.moveaxis(image, -1, 0)], 1)
    picture = np.where(groups[..., None] < 0, image / 5, means[number]).astype(np.uint8)
    return outlined(picture, groups)


def groups_sheet(all_groups: Sequence[TokenGroups], titles: Sequence[str]) -> np.ndarray:
    """Draw a contact sheet: of each image, in a row, what the network saw and the groups after the last block.

    Args:
        all_groups: of one model; of a clip its middle frame is shown.
        titles: one an image.
    """
    rows = []
    for groups, title in zip(all_groups, titles, strict=True):
        image, last = groups.image, groups.layers[-1]
        cells = last.groups
        if image.ndim == 4:
            image, cells = image[len(image) // 2], cells[len(cells) // 2]
        rows.append([(scaled(image, _ROW), title), (overlay(image, cells, _ROW), last.title)])
    return grid_of_panels(side_by_side(rows))


def groups_picture(groups: TokenGroups, title: str = '') -> np.ndarray:
    """Draw what the network saw and the groups after some of the blocks, uint8 RGB; of a clip frames in rows.

    Args:
        groups: of :func:`token_groups`.
        title: of the whole.
    """
    # Spread evenly, the last among them.
    numbers = np.unique(np.linspace(0, len(groups.layers), _ACROSS + 1).round().astype(int))[1:] - 1
    chosen = [groups.layers[number] for number in numbers]
    if groups.image.ndim == 3:
        panels = [(scaled(groups.image, _PANEL), 'what the network sees')]
        panels += [(overlay(groups.image, layer.groups, _PANEL), layer.title) for layer in chosen]
        return grid_of_panels([panels], title)
    frames = evenly(len(groups.image), _FRAMES)
    rows = [[(scaled(groups.image[t], _PANEL // 2), f'frame {t + 1}') for t in frames]]
    for layer in chosen:
        steps = frames * len(layer.groups) // len(groups.image)
        rows.append([(overlay(groups.image[t], layer.groups[step], _PANEL // 2), '') for t, step in zip(frames, steps)])
    names = ['what the\nnetwork sees', *(layer.title.replace(': ', ':\n').replace(', ', ',\n') for layer in chosen)]
    return grid_of_panels(rows, title, names=names)
