"""The interface of what a layer does with tokens, and self-attention, which leaves their number as it is."""

import torch.nn as nn

from ..tokens import Tokens


class Step(nn.Module):
    """What one layer does with the tokens.

    A step calls the block and not its parts, so that hooks, sharding and recomputed activations see ordinary blocks. It
    sets nothing on modules.
    """

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Run the block on the tokens.

        Args:
            block: a :class:`.TransformerBlock`.
            tokens: what the layer before has left.
        """
        raise NotImplementedError


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

    def forward(self, block: nn.Module, tokens: Tokens) -> Tokens:
        """Let the tokens attend to each other; one that stands for several patches weighs as those do."""
        x, layout = tokens.x, tokens.layout
        if tokens.image is None:
            attention = layout.image_attention(x, self.shifted)
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
