"""The state that flows through an encoder: tokens, their layout and their reductions."""

from typing import NamedTuple

from torch import Tensor

from ..functional.reduction import Reduction
from .layout import TokenLayout


class Tokens(NamedTuple):
    """Tokens between two transformer blocks.

    Attributes:
        x: the tokens, laid out as ``layout`` says: ``(B, N, C)`` of a whole image, prefix tokens first; of windows
            ``(B, *grid, C)``, and semantic tokens ``(B, G, n, C)``.
        layout: how image tokens and semantic tokens lie in tensors, and who attends to whom.
        image: the image tokens that were set aside when ``x`` became semantic tokens; ``None`` before, and after
            recovery.
        size: ``(B, N, 1)``, the patches that each token stands for; ``None`` for one each.
        trace: the reductions that led from the image tokens to ``x``. Composed, they are the token map.
    """

    x: Tensor
    layout: TokenLayout
    image: Tensor | None = None
    size: Tensor | None = None
    trace: tuple[Reduction, ...] = ()

    @property
    def key_bias(self) -> Tensor | None:
        """``(B, N)``, added to the logits of each key: one that stands for several patches weighs as those do."""
        return None if self.size is None else self.size[..., 0].log()
