"""The dense STViT-R layout with the authors' attention masks, needed to reproduce their detectors.

Their larger windows hold padding, and zeros outside the image, as keys. One zero token, a key of its own, stands for
all of them, with the logarithm of their number added to its logit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..functional.windows import HIDDEN, Boxes, Keys, Size, combine, for_queries, keys_of_boxes
from .attention import AttentionLayout
from .layout import Context
from .window_layout import PaddedWindows


@dataclass(frozen=True)
class PublishedWindows(PaddedWindows):
    """Padded windows in which zero padding is attended to, as published.

    Attributes:
        hide: whether the cells that the authors' code hides are hidden: the outside, and where rows ``[-pad:]`` cross
            columns ``[-pad:]``, as Python slices; a window that would see nothing sees everything.
    """

    hide: bool = True

    @property
    def valid(self) -> Size:
        return self.cells

    def initial_centers(self, x: Tensor, pooling: str) -> Tensor:
        return self._pooled(x, pooling)

    def generation(self, s: Tensor, x: Tensor) -> Context:
        return self._with_zero(*super().generation(s, x))

    def refinement(self, s: Tensor, x: Tensor) -> Context:
        return self._with_zero(*super().refinement(s, x))

    def recovery(self, s: Tensor) -> Context:
        return self._with_zero(*super().recovery(s))

    @staticmethod
    def _with_zero(context: Sequence[Tensor], attention: AttentionLayout | None) -> Context:
        (part,) = context
        return (part, part.new_zeros(part.shape[0], 1, part.shape[-1])), attention

    def _keys(self, boxes: Boxes) -> tuple[tuple[Keys | None, ...], Tensor]:
        pads = tuple(p - g for p, g in zip(self.padded, self.grid)) if self.hide else None
        keys, zero = keys_with_zeros(boxes, True, self.device, pads)
        return (keys, None), torch.cat((keys.bias, zero), dim=-1)


def keys_with_zeros(boxes: Boxes, may_band: bool, device: torch.device, pads: Size | None) -> tuple[Keys, Tensor]:
    """Return the keys of :func:`.keys_of_boxes` plus one key that stands for all zeros in a box.

    Args:
        boxes, may_band, device: as of :func:`.keys_of_boxes`.
        pads: padding of the image tokens along each axis, for what the authors' code hides; ``None``: hide nothing.

    Returns:
        The keys, and the bias (groups, 1, queries, 1) of the zero token: the logarithm of the number of zeros.
    """
    zeros, _ = zeros_in_boxes(boxes, None)
    show, length = None, boxes.length
    if pads is not None:
        hidden_from = tuple(max(n - p, 0) if p else 0 for n, p in zip(length, pads))
        zeros_shown, any_shown = zeros_in_boxes(boxes, hidden_from)
        zeros = torch.where(any_shown, zeros_shown, zeros)

        def show(seen: Tensor, coords: list[Tensor]) -> Tensor:
            shown = seen & ~combine([c >= h for c, h in zip(coords, hidden_from)])
            return torch.where(any_shown.reshape(*any_shown.shape, *[1] * (2 * len(length))), shown, seen)

    keys = keys_of_boxes(boxes, may_band, device, show)
    number = torch.where(zeros > 0, zeros.clamp(min=1).log(), HIDDEN)
    return keys, for_queries(number.reshape(len(keys.bias), -1, 1), boxes.queries).to(device)


def zeros_in_boxes(boxes: Boxes, hidden_from: Size | None) -> tuple[Tensor, Tensor]:
    """Count the zero cells in the box of each query window, and whether the box holds any cell, (c_1, c_2, ...).

    With ``hidden_from``, the first hidden row and column, the outside of the grid is hidden, and what is behind both.
    """
    length = boxes.length
    coords = [torch.tensor(s)[:, None, None] + torch.arange(e[0] - s[0]) for s, e in zip(boxes.starts, boxes.ends)]
    seen = torch.ones((), dtype=torch.bool)
    if hidden_from is not None:
        seen = combine([(c >= 0) & (c < n) for c, n in zip(coords, length)])
        seen = seen & ~combine([c >= h for c, h in zip(coords, hidden_from)])
    zero = seen & ~combine([(c >= 0) & (c < r) for c, r in zip(coords, boxes.real)])
    rank = len(length)
    return zero.flatten(rank).sum(-1), seen.expand_as(zero).flatten(rank).any(-1)
