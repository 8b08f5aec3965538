"""The encoder: transformer blocks, each driven by a step."""

from collections.abc import Sequence

import torch.nn as nn
from torch import Tensor

from .layout import TokenLayout
from .steps import Step
from .tokens import Tokens


class Encoder(nn.Module):
    """A sequence of transformer blocks, each applied by its step.

    The blocks are those of the plain transformer, with its names and shapes; parameters that a method adds belong to
    its steps.

    Args:
        layers: the blocks.
        steps: what each does with the tokens.
    """

    def __init__(self, layers: Sequence[nn.Module], steps: Sequence[Step]) -> None:
        super().__init__()
        if len(layers) != len(steps):
            raise ValueError(f'there are {len(layers)} layers and {len(steps)} steps')
        self.layers = nn.ModuleList(layers)
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor, layout: TokenLayout, out_indices: Sequence[int] = ()) -> tuple[Tokens, list[Tokens]]:
        """Run the layers.

        Args:
            x: image tokens, as ``layout`` has them.
            layout: how tokens are laid out at this image size.
            out_indices: the layers whose outputs are wanted, counted from 0.

        Returns:
            The last tokens, and those of each wanted layer.
        """
        tokens, outs = Tokens(x, layout), []
        for i, (block, step) in enumerate(zip(self.layers, self.steps, strict=True)):
            tokens = step(block, tokens)
            if i in out_indices:
                outs.append(tokens)
        return tokens, outs
