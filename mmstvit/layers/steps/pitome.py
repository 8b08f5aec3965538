"""PiToMe: tokens that have many others like them are merged, and those that stand alone are protected."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...functional.matching import energy_matching
from ...functional.reduction import Reduction
from ...functional.windows import Size
from ..tokens import Tokens
from .base import Amount, Network, Step
from .merge import Merge
from .schedule import plan


class PiToMe(Merge):
    """Merge pairs among the tokens of highest energy, between attention and MLP.

    "Accelerating Transformers with Spectrum-Preserving Token Merging", arXiv 2405.16148, see :func:`.energy_matching`;
    similarity is that of the keys, the mean over heads.

    Args:
        amount: tokens to remove; at most half of them are.
        margin: the cosine from which on tokens count as alike.
        proportional: whether a token that stands for several patches weighs as those do in attention.
    """

    def __init__(self, amount: Amount, margin: float, proportional: bool = True) -> None:
        super().__init__(amount, proportional)
        self.margin = margin

    def least(self, count: int, grid: Size) -> int:
        return count - count // 2

    def match(self, tokens: Tokens, k: Tensor) -> Reduction:
        return energy_matching(k, self.removed_of(tokens), self.margin, tokens.layout.num_prefix)


def pitome(network: Network, proportional: bool = True, **amount: Any) -> list[Step]:
    """Return the steps of PiToMe: in each block pairs are merged among the tokens that have most others like them.

    The margin falls from 0.9 in the first block, ``0.9 - 0.9 l / L`` in block l of L, from 0.

    Args:
        network: the transformer.
        proportional: whether a token that stands for several patches weighs as those do in attention.
        **amount: ``keep_rate``, as in the paper, ``r`` or ``budget``, see :func:`.plan`.

    Raises:
        ValueError: amounts that cannot be.
    """

    def make(layer: int, amounts: Sequence[Amount]) -> Step:
        return PiToMe(amounts[layer], 0.9 - 0.9 * layer / network.num_layers, proportional)

    return plan(network, make, amount, default=range(network.num_layers))
