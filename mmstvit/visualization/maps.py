"""Token maps as arrays: for each token and layer a map over the image tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

# The roles of layers that have maps, and how they are called in pictures.
TITLES = {'generate': 'STGM layer 1', 'refine': 'STGM layer 2', 'recover': 'recovery'}


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """Attention between semantic tokens and image tokens in one layer, averaged over heads.

    In the two layers of the STGM the semantic tokens attend to the image: the map of a token is its attention weights
    over the image cells, divided by their sum, so that **each map sums to 1 over the cells**. A token attends to
    semantic tokens too, and in some forms to padding: ``share`` tells how much of its weight lay on the image.
    In recovery the image tokens attend to the semantic ones: the maps are the weights of each cell over the tokens, so
    that **at each cell the maps sum to 1 over the tokens**.

    Attributes:
        name: of the layer in the model.
        role: ``'generate'`` and ``'refine'``, the two layers of the STGM, or ``'recover'``.
        unit: to which unit of STViT-R it belongs, counted from 1; STViT has one.
        attention: (tokens, *grid), float32, over the cells of the image tokens; tokens are numbered row by row through
            their own grid, of a clip step by step in time.
        share: (tokens,), of the weights of each token, those on the image; in recovery all.
        live: (tokens,), false for tokens of padding alone, which nothing attends to.
        cell: pixels of a cell along each axis, of a clip frames first.
        size: of the input, (height, width) or (frames, height, width); the last cells may reach beyond it.
    """

    name: str
    role: str
    unit: int
    attention: np.ndarray
    share: np.ndarray
    live: np.ndarray
    cell: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def title(self) -> str:
        """Title in pictures, without the unit."""
        return TITLES[self.role]

    def assigned_cells(self) -> np.ndarray:
        """Return for each cell the token that attends most to it (in recovery: that it attends most to).

        Maps of tokens are compared as they are in ``attention``: in the STGM, by the share of its own attention that a
        token gives to the cell, whatever it keeps for other semantic tokens.

        Returns:
            ``grid``, int64: the number of a live token, -1 where none attends.
        """
        maps = np.where(self.live.reshape(-1, *[1] * len(self.cell)), self.attention, 0)
        return np.where(maps.max(axis=0) > 0, maps.argmax(axis=0), -1)

    def assigned(self) -> np.ndarray:
        """Return :meth:`assigned_cells` upsampled to pixels: ``size``, int64."""
        assigned = self.assigned_cells()
        for axis, pixels in enumerate(self.cell):
            assigned = assigned.repeat(pixels, axis)
        return assigned[tuple(slice(0, n) for n in self.size)]

    def flat(self) -> float:
        """Return the value of :meth:`resized` of tokens that are attended to, or attend, everywhere alike."""
        return 1 / len(self.live) if self.role == 'recover' else 1 / math.prod(self.size)

    def resized(self, tokens: Sequence[int] | None = None) -> np.ndarray:
        """Return the maps at the size of the input, linearly interpolated.

        Args:
            tokens: which, by number; ``None`` for all, which takes much memory for clips and large images.

        Returns:
            (tokens, *size), float32. They sum to 1 as ``attention`` does, over pixels instead of cells.

        Raises:
            ValueError: there is no such token.
        """
        maps = torch.from_numpy(self.attention[check_tokens(self.live, tokens)])
        whole = [cells * pixels for cells, pixels in zip(maps.shape[1:], self.cell)]
        maps = F.interpolate(maps[None], whole, mode='bilinear' if len(whole) == 2 else 'trilinear')[0]
        maps = maps[(slice(None), *(slice(0, n) for n in self.size))]
        if self.role != 'recover':
            maps = maps / maps.flatten(1).sum(1).clamp(min=torch.finfo(maps.dtype).tiny).reshape(-1, *[1] * len(whole))
        return maps.numpy()


def check_tokens(live: np.ndarray, tokens: Sequence[int] | None) -> list[int]:
    """Validate token numbers; ``None`` means all.

    Raises:
        ValueError: there is no such token.
    """
    if tokens is None:
        return list(range(len(live)))
    unknown = [token for token in tokens if not 0 <= token < len(live)]
    if unknown:
        raise ValueError(f'there is no semantic token {unknown[0]}: they are numbered from 0 to {len(live) - 1}')
    return list(tokens)


@dataclass(frozen=True, eq=False)
class TokenMaps:
    """Token maps of all generation, refinement and recovery layers, for one image or clip.

    Attributes:
        image: what the network saw, uint8 RGB, (height, width, 3) or (frames, height, width, 3), after the test
            pipeline's resizing and cropping, with padding; of a tensor, its values stretched to 0 to 255.
        semantic_grid: the grid of the semantic tokens, (rows, columns) or (time, rows, columns).
        layers: the maps, in the order of the layers.
        result: what :func:`mmstvit.inference_model` gave for the image; ``None`` for a tensor.
    """

    image: np.ndarray
    semantic_grid: tuple[int, ...]
    layers: tuple[LayerMaps, ...]
    result: Any = None

    def of_unit(self, unit: int) -> 'TokenMaps':
        """Return the maps of one unit of STViT-R.

        Raises:
            ValueError: there is no such unit.
        """
        layers = tuple(layer for layer in self.layers if layer.unit == unit)
        if not layers:
            raise ValueError(f'there is no unit {unit}: they are numbered from 1 to {self.layers[-1].unit}')
        return replace(self, layers=layers)

    def layer(self, role: str, unit: int = 1) -> LayerMaps:
        """Return the maps of one layer.

        Raises:
            ValueError: there is no such layer.
        """
        for layer in self.layers:
            if (layer.role, layer.unit) == (role, unit):
                return layer
        there = ', '.join(f'{layer.role} of unit {layer.unit}' for layer in self.layers)
        raise ValueError(f'there is no layer {role!r} of unit {unit}: there are {there}')

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything for ``np.savez``: ``image``, ``semantic_grid``, and of each layer its ``attention``, ``share``,
        ``live``, ``cell`` and ``assigned``, under names such as ``unit1/refine/attention``.
        """
        arrays = dict(image=self.image, semantic_grid=np.array(self.semantic_grid))
        for layer in self.layers:
            values = {name: np.array(getattr(layer, name)) for name in ('attention', 'share', 'live', 'cell')}
            values['assigned'] = layer.assigned()
            arrays.update({f'unit{layer.unit}/{layer.role}/{name}': value for name, value in values.items()})
        return arrays
