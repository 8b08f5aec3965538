"""ATM: as ToMe, but in the last layers large tokens are never merged with each other."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...functional.matching import size_matching
from ...functional.reduction import Reduction
from ..tokens import Tokens
from .base import Amount, Network, Step
from .schedule import plan
from .tome import ToMe


class ATM(ToMe):
    """Merge tokens of the smaller half, by the patches they stand for, into their most similar ones of the larger half.

    "Lossless Token Merging Even Without Fine-Tuning in Vision Transformers", arXiv 2505.15160, see
    :func:`.size_matching`. Where nothing was merged before, all are of one size, and it is :class:`.ToMe`.
    """

    def match(self, tokens: Tokens, k: Tensor) -> Reduction:
        if tokens.size is None:
            return super().match(tokens, k)
        return size_matching(k, tokens.size, self.removed_of(tokens), tokens.layout.num_prefix)


def atm(
    network: Network, by_size: int | None = None, to: int | None = None, proportional: bool = True, **amount: Any
) -> list[Step]:
    """Return the steps of ATM: in the first blocks those of ToMe, in the last ones sides are made by size.

    The paper merges, in each layer, all pairs that are more alike than a threshold. Ours: numbers of tokens that are
    fixed before, so that an image does not depend on the others of its batch; and where the last blocks begin.

    Args:
        network: the transformer.
        by_size: the first block, from 0, in which sides are made by size; by default after three quarters of them.
        to: as in :func:`.tome`.
        proportional: whether a token that stands for several patches weighs as those do in attention.
        **amount: ``r``, ``keep_rate`` or ``budget``, see :func:`.plan`.

    Raises:
        ValueError: ``by_size`` is no block, or amounts that cannot be.
    """
    first = network.num_layers * 3 // 4 if by_size is None else by_size
    if first not in range(network.num_layers):
        raise ValueError(f'by_size={by_size} must be the number of one of the {network.num_layers} blocks, from 0')

    def make(layer: int, amounts: Sequence[Amount]) -> Step:
        return (ATM if layer >= first else ToMe)(amounts[layer], proportional)

    return plan(network, make, amount, default=range(network.num_layers), unit='r', to=to)
