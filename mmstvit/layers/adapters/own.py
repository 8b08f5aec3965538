"""STViT without a reduction of its own."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn as nn

from ..designs import DenseBlock
from ..encoder import Encoder
from ..steps import Network, SelfAttention, Step


class OwnTransformer(NamedTuple):
    """The encoder of an :class:`.STViT` that was built with ``reduce=None``; used as :class:`.Transformer` is."""

    encoder: Encoder
    network: Network

    def check(self, steps: Sequence[Step]) -> None:
        """Accept all steps: the network knows what has become of its patches."""

    def run(self, steps: Sequence[Step]) -> None:
        self.encoder.steps = nn.ModuleList(steps)

    @property
    def steps(self) -> nn.ModuleList:
        """Those that run the blocks."""
        return self.encoder.steps

    def restore(self) -> None:
        self.run([SelfAttention() for _ in self.encoder.layers])


def find(vit: Any) -> OwnTransformer | None:
    """Return the transformer that a module is, if it is one.

    Raises:
        ValueError: one that the methods cannot serve.
    """
    if not isinstance(getattr(vit, 'encoder', None), Encoder) or not hasattr(vit, 'pos_embed'):
        return None
    if not all(type(step) is SelfAttention for step in vit.encoder.steps):
        raise ValueError(f'{type(vit).__name__} reduces its tokens already: build it with reduce=None')
    if any(isinstance(layer, DenseBlock) for layer in vit.encoder.layers):
        raise ValueError(f"{type(vit).__name__} with design='dense' cannot be reduced: its layers have several widths")
    return OwnTransformer(vit.encoder, vit.network)
