"""Token layouts: tensor shapes and attention patterns of image and semantic tokens; the global layout."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..functional.rotary import Rotary
from ..functional.windows import Size, adaptive_pool
from .attention import AttentionLayout
from .caching import cached

Context = tuple[Sequence[Tensor], AttentionLayout | None]


class TokenLayout(Protocol):
    """Interface of a token layout at one image size.

    Attributes:
        grid: image tokens along each axis, N in all.
        cells: semantic tokens along each axis, M in all; ``None`` where there are none.
        valid: how many of them along each axis stand for image and not for padding; they come first.
        num_prefix: tokens at the front that belong to no cell (a class token).
    """

    @property
    def grid(self) -> Size: ...

    @property
    def cells(self) -> Size | None: ...

    @property
    def num_prefix(self) -> int: ...

    @property
    def valid(self) -> Size | None: ...

    def image_from_grid(self, grid: Tensor) -> Tensor:
        """(B, *grid, C) -> as image tokens lie; zeros for prefix tokens."""

    def image_to_grid(self, x: Tensor) -> Tensor:
        """Image tokens -> (B, *grid, C), without prefix tokens."""

    def from_grid(self, cells: Tensor) -> Tensor:
        """(B, *cells, C) -> as semantic tokens lie; zeros for prefix tokens."""

    def to_grid(self, s: Tensor) -> Tensor:
        """Semantic tokens -> (B, *cells, C), without prefix tokens."""

    def initial_centers(self, x: Tensor, pooling: str) -> Tensor:
        """Pool image tokens to the initial cluster centres of generation."""

    def image_queries(self, s: Tensor, x: Tensor) -> Tensor:
        """Return the queries of recovery: image tokens, with the prefix tokens of the semantic tokens."""

    def image_attention(self, x: Tensor, shifted: bool = False) -> AttentionLayout | None:
        """Return the self-attention pattern of image tokens."""

    def semantic_attention(self, across: bool) -> AttentionLayout | None:
        """Return the self-attention pattern of semantic tokens: across all windows, or within each."""

    def generation(self, s: Tensor, x: Tensor) -> Context:
        """Return context and attention pattern of generation."""

    def refinement(self, s: Tensor, x: Tensor) -> Context:
        """Return context and attention pattern of refinement."""

    def recovery(self, s: Tensor) -> Context:
        """Return context and attention pattern of recovery."""


class WholeImage(NamedTuple):
    """Global layout of a plain transformer: every token attends to every other.

    Image tokens are ``(B, num_prefix + N, C)``, semantic ones ``(B, num_prefix + M, C)``.

    Attributes:
        grid: image tokens along each axis.
        device: where biases are to be.
        num_prefix: tokens at the front that belong to no cell.
        cells: semantic tokens along each axis.
        rotary: rotations of the image tokens' queries and keys, those of prefix tokens first.
    """

    grid: Size
    device: torch.device
    num_prefix: int = 0
    cells: Size | None = None
    rotary: Rotary | None = None

    @property
    def valid(self) -> Size | None:
        return self.cells

    @property
    def _semantic(self) -> Size:
        """The cells, of a layout that has them."""
        return self.cells or ()

    def image_from_grid(self, grid: Tensor) -> Tensor:
        return F.pad(grid.flatten(1, -2), (0, 0, self.num_prefix, 0))

    def from_grid(self, cells: Tensor) -> Tensor:
        return self.image_from_grid(cells)

    def _patches(self, x: Tensor) -> Tensor:
        return x[:, self.num_prefix :]

    def image_to_grid(self, x: Tensor) -> Tensor:
        return self._patches(x).unflatten(1, self.grid)

    def to_grid(self, s: Tensor) -> Tensor:
        return self._patches(s).unflatten(1, self.cells)

    def initial_centers(self, x: Tensor, pooling: str) -> Tensor:
        pooled = adaptive_pool(self.image_to_grid(x), self._semantic, pooling)
        return torch.cat((x[:, : self.num_prefix], pooled.flatten(1, -2)), dim=1)

    def image_queries(self, s: Tensor, x: Tensor) -> Tensor:
        return torch.cat((s[:, : self.num_prefix], self._patches(x)), dim=1)

    def _balanced(self, *parts: tuple[int, int]) -> AttentionLayout | None:
        """Of parts of the keys, tokens and steps in time of each; images have one."""
        return balanced_attention(((self.num_prefix, 1), *parts), self.device) if len(self.grid) > 2 else None

    def image_attention(self, x: Tensor, shifted: bool = False) -> AttentionLayout | None:
        attention = self._balanced((x.shape[1] - self.num_prefix, self.grid[0]))
        return attention if self.rotary is None else (attention or AttentionLayout())._replace(rotary=self.rotary)

    def semantic_attention(self, across: bool) -> AttentionLayout | None:
        return self._balanced((math.prod(self._semantic), self._semantic[0]))

    def generation(self, s: Tensor, x: Tensor) -> Context:
        parts = ((math.prod(self._semantic), self._semantic[0]), (math.prod(self.grid), self.grid[0]))
        return (s, self._patches(x)), self._balanced(*parts)

    def refinement(self, s: Tensor, x: Tensor) -> Context:
        return self.generation(s, x)

    def recovery(self, s: Tensor) -> Context:
        return (s,), self.semantic_attention(across=True)


@cached(36)
def balanced_attention(parts: tuple[tuple[int, int], ...], device: torch.device) -> AttentionLayout | None:
    """Return global attention over a clip in which parts of the keys differ in the number of time steps.

    Each part weighs as it does in an image, however many steps of time it has: a clip that stands still then has the
    features of its image, and weights of images are a good start.

    Args:
        parts: tokens and steps of time of each part of the keys, in order.
        device: where the bias is to be.
    """
    parts = tuple(part for part in parts if part[0])
    longest = max(steps for _, steps in parts)
    if all(steps == longest for _, steps in parts):
        return None
    bias = torch.cat([torch.full((tokens,), math.log(longest / steps)) for tokens, steps in parts])
    return AttentionLayout(bias=bias.reshape(1, 1, 1, -1).to(device))
