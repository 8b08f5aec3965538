"""The state that flows through an encoder: tokens, their layout and their reductions."""

from typing import NamedTuple

from torch import Tensor

from ..functional.reduction import Reduction, compose
from ..functional.rotary import Rotary
from ..functional.windows import Size
from .attention import AttentionLayout
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
        proportional: whether a token that stands for several patches weighs as those do in attention.
        dropped: the last values of tokens that were dropped, at the places of their patches and zeros elsewhere, where
            they are to be put back; else ``None``.
        kept: of a method that learns how many tokens it keeps, in training: after each layer that reduces, 1 for each
            token that is there and 0 for one that is hidden, (B, N) without prefix tokens, with gradients.
        rotary: rotations of the queries and keys of reduced tokens; ``None`` for those that the layout has, or none.
    """

    x: Tensor
    layout: TokenLayout
    image: Tensor | None = None
    size: Tensor | None = None
    trace: tuple[Reduction, ...] = ()
    proportional: bool = True
    dropped: Tensor | None = None
    kept: tuple[Tensor, ...] = ()
    rotary: Rotary | None = None

    @property
    def key_bias(self) -> Tensor | None:
        """``(B, N)``, added to the logits of each key: one that stands for several patches weighs as those do."""
        return self.size[..., 0].log() if self.proportional and self.size is not None else None

    @property
    def grid(self) -> Size:
        """Of the patches, along each axis.

        Raises:
            ValueError: it is not known.
        """
        grid = self.layout.grid
        if len(grid) < 2:
            raise ValueError(
                f'the grid of {grid[0]} patches is not known here, since some were dropped or other code than the '
                "network's own made them, and the method needs it: take one that does not, e.g. ToMe"
            )
        return grid

    def attention(self, shifted: bool = False) -> AttentionLayout | None:
        """Return which keys each image token attends to; see :meth:`.TokenLayout.image_attention`."""
        attention = self.layout.image_attention(self.x, shifted)
        return attention if attention is None or self.rotary is None else attention._replace(rotary=self.rotary)

    def reduced(self, reduction: Reduction, x: Tensor, size: Tensor | None = None) -> 'Tokens':
        """Return what a reduction leaves of these tokens.

        Args:
            reduction: which tokens become one.
            x: the reduced tokens.
            size: of them, ``None`` for one patch each.
        """
        attention, rotary = self.attention(), None
        if attention is not None and attention.rotary is not None:
            rotary = attention.rotary.reduced(reduction, self.size, x.shape[0])
        return self._replace(x=x, size=size, trace=(*self.trace, reduction), rotary=rotary)

    def unmerge(self) -> Tensor:
        """Return a token for each patch of a whole image, (B, num_prefix + N, C): that which it became a part of.

        Patches that were dropped have the last values that they had, where these are kept aside, else zeros.
        """
        x = compose(self.trace).unmerge(self.x)
        return x if self.dropped is None else x + self.dropped
