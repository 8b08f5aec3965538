"""DPC-KNN: tokens are clustered around peaks of their density."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...functional.matching import density_peaks
from ...functional.reduction import Reduction
from ..tokens import Tokens
from .base import Network, Step
from .merge import Merge
from .schedule import plan


class DPCKNN(Merge):
    """Merge tokens into clusters around the peaks of their density, between attention and MLP.

    "Not All Tokens Are Equal: Human-centric Visual Analysis via Token Clustering Transformer" (TCFormer), arXiv
    2204.08680, see :func:`.density_peaks`; distances are those of the tokens themselves. Ours: tokens weigh in their
    cluster by the patches that they stand for, and no learned score.
    """

    def match(self, tokens: Tokens, k: Tensor) -> Reduction:
        return density_peaks(tokens.x, self.kept_of(tokens), tokens.layout.num_prefix)


def dpcknn(
    network: Network, blocks: Sequence[int] | None = None, proportional: bool = True, **amount: Any
) -> list[Step]:
    """Return the steps of DPC-KNN: in a few blocks tokens are clustered around the peaks of their density.

    Args:
        network: the transformer.
        blocks: where, from 0; by default 3, 6 and 9 of 12, and the same quarters of others.
        proportional: whether a token that stands for several patches weighs as those do in attention.
        **amount: ``keep_rate``, ``r`` or ``budget``, see :func:`.plan`.

    Raises:
        ValueError: amounts that cannot be.
    """
    return plan(network, lambda i, amounts: DPCKNN(amounts[i], proportional), amount, blocks)
