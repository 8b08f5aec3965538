"""Window layouts: Swin, STViT on Swin, and both forms of STViT-R."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..functional.windows import (
    HIDDEN,
    Boxes,
    Keys,
    Size,
    adaptive_pool,
    keys_of_boxes,
    num_windows,
    partition,
    reverse,
    shifted_mask,
    valid_cells,
)
from .attention import AttentionLayout, Windows
from .caching import cached
from .layout import Context, balanced_attention


class WindowSpec(NamedTuple):
    """Window settings of a hierarchical transformer, independent of the image size.

    Attributes:
        window: image tokens of a window along each axis.
        size: semantic tokens of a window along each axis.
        hide_padding: whether image layers hide the padding of their windows; Swin does not.
        always_shift: whether windows are shifted even where one covers the image.
        fit: whether a window of image tokens shrinks to the image along each axis where it is larger, and is not
            shifted along that one alone, as in Video Swin; Swin pads, and shifts along all axes or none.
    """

    window: Size
    size: Size
    hide_padding: bool = False
    always_shift: bool = False
    fit: bool = False


@cached(36)  # three image sizes; one of 800 x 1216 takes 54 MB
def _once(layout: 'WindowLayout', method: str, *args: Any) -> AttentionLayout:
    """Build an attention pattern of a layout once per image size; as a method, torch.compile cannot follow it."""
    return getattr(layout, method)(*args)


@dataclass(frozen=True)
class WindowLayout:
    """A :class:`WindowSpec` at one image size. Image tokens are ``(B, *grid, C)``, semantic ones ``(B, G, n, C)``.

    Attributes:
        spec: the windows and semantic tokens.
        grid: image tokens along each axis.
        device: where masks and indices are to be.
    """

    spec: WindowSpec
    grid: Size
    device: torch.device
    num_prefix: ClassVar[int] = 0

    @property
    def num_windows(self) -> Size:
        """Number of windows along each axis."""
        return num_windows(self.grid, self.spec.window)

    @property
    def cells(self) -> Size:
        return tuple(n * s for n, s in zip(self.num_windows, self.spec.size))

    @property
    def valid(self) -> Size:
        return self.cells

    def image_from_grid(self, grid: Tensor) -> Tensor:
        return grid

    image_to_grid = image_from_grid

    def from_grid(self, cells: Tensor) -> Tensor:
        return partition(cells, self.spec.size, self.num_windows)

    def to_grid(self, s: Tensor) -> Tensor:
        return reverse(s, self.spec.size, self.num_windows, self.cells)

    def image_queries(self, s: Tensor, x: Tensor) -> Tensor:
        return x

    def image_attention(self, x: Tensor, shifted: bool = False) -> AttentionLayout:
        return _once(self, '_image_attention', shifted)

    def semantic_attention(self, across: bool) -> AttentionLayout:
        return _once(self, '_semantic_attention', across)

    def _image_attention(self, shifted: bool) -> AttentionLayout:
        spec, grid = self.spec, self.grid
        covered = [g <= w for g, w in zip(grid, spec.window)]
        window, shift = spec.window, tuple(w // 2 for w in spec.window)
        if spec.fit:
            window = tuple(min(g, w) for g, w in zip(grid, window))
            shift = tuple(0 if c else s for c, s in zip(covered, shift))
        elif any(covered) and not spec.always_shift:
            shift = (0,) * len(grid)
        if not shifted:
            shift = (0,) * len(grid)
        mask = shifted_mask(grid, window, self.num_windows, shift, spec.hide_padding, self.device)
        return AttentionLayout(Windows(grid, window, self.num_windows, shift), bias=mask)

    def _semantic_attention(self, across: bool) -> AttentionLayout:
        groups = 1 if across else None
        if self.valid == self.cells:
            return AttentionLayout(groups=groups)
        hidden = torch.full((1, *self.cells, 1), HIDDEN)
        real: Any = (0, *(slice(0, n) for n in self.valid))
        hidden[real] = 0.0
        hidden = self.from_grid(hidden)[0, ..., 0].to(self.device)  # (G, n)
        return AttentionLayout(groups=groups, bias=hidden.reshape(1, 1, 1, -1) if groups else hidden[:, None, None])


@dataclass(frozen=True)
class StretchedWindows(WindowLayout):
    """Windows whose semantic grid is stretched over the image, for classification: no semantic token is padding.

    The first layer of the STGM sees its own tokens and a larger window of the image, the others see everything.
    """

    def initial_centers(self, x: Tensor, pooling: str) -> Tensor:
        return self.from_grid(adaptive_pool(x, self.cells, pooling))

    def generation(self, s: Tensor, x: Tensor) -> Context:
        return (s, x), _once(self, '_generation')

    def refinement(self, s: Tensor, x: Tensor) -> Context:
        return (s, x), _once(self, '_refinement')

    def recovery(self, s: Tensor) -> Context:
        return (s,), AttentionLayout(groups=1)

    def _refinement(self) -> AttentionLayout:
        grid, cells = self.grid, self.cells
        balanced = None
        if len(grid) == 3:
            parts = ((math.prod(cells), cells[0]), (math.prod(grid), grid[0]))
            balanced = balanced_attention(parts, self.device)
        return (balanced or AttentionLayout())._replace(groups=1)

    def _generation(self) -> AttentionLayout:
        size, grid, counts = self.spec.size, self.grid, self.num_windows
        queries = math.prod(size)
        axes = list(zip(grid, counts, self.spec.window))
        image_starts = tuple(tuple(i * g // n - w // 2 for i in range(n)) for g, n, w in axes)
        image_ends = tuple(tuple(-(-(i + 1) * g // n) + w // 2 for i in range(n)) for g, n, w in axes)
        boxes = Boxes(image_starts, image_ends, queries, window=grid, length=grid, real=grid)
        image = keys_of_boxes(boxes, may_band=False, device=self.device)
        starts = tuple(tuple(i * s for i in range(n)) for n, s in zip(counts, size))
        ends = tuple(tuple((i + 1) * s for i in range(n)) for n, s in zip(counts, size))
        boxes = Boxes(starts, ends, queries, window=size, length=self.cells, real=self.cells, windowed=True)
        own = keys_of_boxes(boxes, may_band=False, device=self.device).bias
        if len(grid) == 3:
            # As in `balanced_attention`: each window sees a few steps of time of its own tokens, and more of the image.
            seen = torch.tensor([min(e, grid[0]) - max(s, 0) for s, e in zip(image_starts[0], image_ends[0])])
            balance = (seen / size[0]).log().repeat_interleave(own.shape[2] // counts[0])
            own = own + balance[:, None].to(self.device)
        return AttentionLayout(groups=1, bias=torch.cat((own, image.bias), dim=-1))


@dataclass(frozen=True)
class PaddedWindows(WindowLayout):
    """Windows of an image padded to a multiple of the window, for dense tasks; keys come from a larger window.

    Padding, and what lies outside the image, is never seen.
    """

    @property
    def valid(self) -> Size:
        valid = valid_cells(self.grid, self.spec.window, self.spec.size)
        return tuple(min(n, c) for n, c in zip(valid, self.cells))

    @property
    def padded(self) -> Size:
        """Number of image tokens along each axis, padding included."""
        return tuple(n * w for n, w in zip(self.num_windows, self.spec.window))

    def initial_centers(self, x: Tensor, pooling: str) -> Tensor:
        if self.padded == self.grid:
            return self._pooled(x, pooling)
        if pooling == 'avg':
            # The mean over real tokens: the share of them in each bin divides the padding's zeros out.
            shares = self._pooled(x.new_ones(1, *self.grid, 1), pooling)
            return self._pooled(x, pooling) / shares.clamp(min=1e-6)
        pooled = self._pooled(x, pooling, float('-inf'))
        return torch.where(pooled.isinf(), torch.zeros_like(pooled), pooled)

    def _pooled(self, x: Tensor, pooling: str, padding: float = 0.0) -> Tensor:
        windows = partition(x, self.spec.window, self.num_windows, padding)
        pooled = adaptive_pool(windows.flatten(0, 1).unflatten(1, self.spec.window), self.spec.size, pooling)
        return pooled.flatten(1, -2).unflatten(0, windows.shape[:2])

    def generation(self, s: Tensor, x: Tensor) -> Context:
        return (x,), _once(self, '_from_image', 'half')

    def refinement(self, s: Tensor, x: Tensor) -> Context:
        return (x,), _once(self, '_from_image', 'whole')

    def recovery(self, s: Tensor) -> Context:
        return (s,), _once(self, '_from_semantic')

    def _from_image(self, margin: str) -> AttentionLayout:
        """Return the pattern in which semantic tokens attend to their window and a margin of half or one window."""
        window = self.spec.window
        before = tuple(w // 2 for w in window) if margin == 'half' else window
        after = tuple(w - w // 2 for w in window) if margin == 'half' else window
        queries = math.prod(self.spec.size)
        return self._attention(None, queries, window, before, after, self.padded, self.grid, False)

    def _from_semantic(self) -> AttentionLayout:
        """Return the pattern in which image tokens attend to the semantic tokens within four windows."""
        size, window = self.spec.size, self.spec.window
        windows = Windows(self.grid, window, self.num_windows, (0,) * len(self.grid))
        margin = tuple(4 * s for s in size)
        return self._attention(windows, math.prod(window), size, margin, margin, self.cells, self.valid, True)

    def _attention(
        self,
        windows: Windows | None,
        queries: int,
        unit: Size,
        before: Size,
        after: Size,
        length: Size,
        real: Size,
        windowed: bool,
    ) -> AttentionLayout:
        """Return the pattern in which each window attends to a box of cells around its own."""
        counts = self.num_windows
        starts = tuple(tuple(i * u - b for i in range(n)) for n, u, b in zip(counts, unit, before))
        ends = tuple(tuple((i + 1) * u + a for i in range(n)) for n, u, a in zip(counts, unit, after))
        parts, bias = self._keys(Boxes(starts, ends, queries, unit, length, real, windowed))
        return AttentionLayout(windows, parts, bias, len(bias))

    def _keys(self, boxes: Boxes) -> tuple[tuple[Keys | None, ...], Tensor]:
        keys = keys_of_boxes(boxes, may_band=True, device=self.device)
        return (keys,), keys.bias
