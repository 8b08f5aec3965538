"""The interface of what a layer does with tokens, and self-attention, which leaves their number as it is."""

import math
from typing import NamedTuple

import torch.nn as nn
from torch import Tensor

from ...functional.windows import Size
from ..tokens import Tokens


class Network(NamedTuple):
    """The plain transformer that a method makes steps for.

    Attributes:
        num_layers: blocks.
        embed_dims: channels C of the tokens.
        grid: image tokens along each axis, at the image size that the network is made for.
        num_prefix: tokens at the front that belong to no cell; the first is the class token, if there is one.
        mlp_ratio: hidden width of the MLPs, in widths of the tokens.
        class_token: whether there is one among the tokens at the front; else they are registers.
    """

    num_layers: int
    embed_dims: int
    grid: Size
    num_prefix: int = 0
    mlp_ratio: float = 4.0
    class_token: bool = True


class Amount(NamedTuple):
    """How much one block reduces; prefix tokens are not counted.

    Attributes:
        r: tokens to remove.
        keep_rate: share of the tokens to keep.
    """

    r: int = 0
    keep_rate: float = 1.0

    def kept(self, count: int) -> int:
        """Return how many of so many tokens are kept."""
        return math.ceil(self.keep_rate * count - 1e-9) - self.r  # 0.1 x 30 is a little more than 3


class Counts(NamedTuple):
    """Tokens of an image in one block, prefix tokens not counted.

    Attributes:
        attention: that attend to each other.
        mlp: that go through the MLP.
        after: that leave the block.
    """

    attention: int
    mlp: int
    after: int


class Step(nn.Module):
    """What one layer does with the tokens.

    A step calls the block and not its parts, so that hooks, sharding and recomputed activations see ordinary blocks. It
    sets nothing on modules.

    Attributes:
        loses_patches: whether patches are lost that no later token stands for.
        hides: whether tokens may stay at their places, of size 0 and seen by none, since images need different numbers.
        learns_amount: whether it learns how many tokens it keeps; in training it appends to ``Tokens.kept`` then.
    """

    loses_patches = False
    hides = False
    learns_amount = False

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Run the block on the tokens.

        Args:
            block: a :class:`.TransformerBlock`.
            tokens: what the layer before has left.
        """
        raise NotImplementedError

    def counts(self, count: int, grid: Size) -> Counts:
        """Return how many tokens there are in the block.

        Args:
            count: tokens that enter, without prefix tokens.
            grid: image tokens along each axis.
        """
        raise NotImplementedError(f'{type(self).__name__} does not say its tokens')


class SelfAttention(Step):
    """Self-attention of image tokens, or of semantic tokens: those of each window, or all.

    Args:
        shifted: whether windows of image tokens are shifted, as every second layer of Swin has it.
        across: whether semantic tokens attend to those of all windows.
        grid: the grid of all semantic tokens, where the block has a table of relative positions on it.
    """

    def __init__(self, shifted: bool = False, across: bool = False, grid: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.shifted, self.across, self.grid = shifted, across, grid

    def counts(self, count: int, grid: Size) -> Counts:
        return Counts(count, count, count)

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Let the tokens attend to each other; one that stands for several patches weighs as those do."""
        x, layout = tokens.x, tokens.layout
        if tokens.image is None:
            attention = tokens.attention(self.shifted)
            return tokens._replace(x=block(x, None, attention, key_bias=tokens.key_bias))
        attention = layout.semantic_attention(self.across)
        if self.grid is None:
            return tokens._replace(x=block(x, None, attention))
        if layout.cells != self.grid:
            raise ValueError(
                f'relative_pos=True is made for {self.grid} semantic tokens, as at 224 px, and this image has '
                f'{layout.cells}'
            )
        return tokens._replace(x=layout.from_grid(block(layout.to_grid(x), None, attention)))


class ReducingStep(Step):
    """Self-attention, after which there are fewer tokens.

    Args:
        amount: how much is reduced; less where so much cannot be.
    """

    def __init__(self, amount: Amount) -> None:
        super().__init__()
        self.amount = amount

    def least(self, count: int, grid: Size) -> int:
        """Return how many of so many tokens must be kept."""
        return 1

    def kept(self, count: int, grid: Size) -> int:
        """Return how many of so many tokens are kept."""
        return max(self.amount.kept(count), self.least(count, grid))

    def kept_of(self, tokens: Tokens) -> int:
        """Return how many of these tokens are kept, prefix tokens not counted."""
        return self.kept(tokens.x.shape[1] - tokens.layout.num_prefix, tokens.layout.grid)

    def removed_of(self, tokens: Tokens) -> int:
        """Return how many of these tokens are removed."""
        return tokens.x.shape[1] - tokens.layout.num_prefix - self.kept_of(tokens)

    def counts(self, count: int, grid: Size) -> Counts:
        kept = self.kept(count, grid)
        return Counts(count, kept, kept)

    def reduce(self, tokens: Tokens, q: Tensor, k: Tensor, v: Tensor) -> Tokens:
        """Reduce the tokens between attention and MLP.

        Args:
            tokens: as they leave the attention.
            q: queries (B, heads, N, C / heads) of the attention.
            k: keys, the same shape.
            v: values, the same shape.
        """
        raise NotImplementedError

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Run the block; the MLP gets the reduced tokens."""

        def reduce(x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tokens]:
            reduced = self.reduce(tokens._replace(x=x), q, k, v)
            return reduced.x, reduced

        x, reduced = block(tokens.x, None, tokens.attention(), key_bias=tokens.key_bias, reduce=reduce)
        return reduced._replace(x=x)
