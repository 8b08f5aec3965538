"""Cut and reconstruct: the later layers see a few clusters, and each patch gets its features back from the nearest."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...functional.matching import soft_clusters
from ...functional.precision import full_precision
from ...functional.reduction import Reduction, merge_weighted
from ..tokens import Tokens
from .base import Amount, Network, Step
from .controls import GridPool
from .schedule import plan


class Expedite(GridPool):
    """Cluster the tokens around the cells of a coarser grid by soft k-means, between attention and MLP.

    "Expediting Large-Scale Vision Transformer for Dense Prediction without Fine-tuning", arXiv 2210.01035, see
    :func:`.soft_clusters`. A patch of a map gets the mean over the clusters that were nearest to it here.

    Args:
        amounts: of all blocks up to this one, which say the grid of the tokens here.
        proportional: whether a cluster weighs in attention as the patches that it stands for.
        **options: of :func:`.soft_clusters`.
    """

    def __init__(self, amounts: Sequence[Amount], proportional: bool = True, **options: Any) -> None:
        super().__init__(amounts, proportional)
        self.options = options

    def match(self, tokens: Tokens, k: Tensor) -> Reduction:
        grids, prefix = self.grids(tokens.grid), tokens.layout.num_prefix
        return soft_clusters(tokens.x, *grids, tokens.size, prefix, **self.options)

    def combine(self, reduction: Reduction, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
        with full_precision(x):  # the smallest shares are zeros in half precision
            merged, sizes = merge_weighted(reduction, x.float(), size)
        return merged.to(x.dtype), sizes.to(x.dtype)


def expedite(
    network: Network,
    blocks: Sequence[int] | None = None,
    proportional: bool = True,
    iterations: int = 2,
    neighbors: int = 4,
    sharpness: float = 4.0,
    **amount: Any,
) -> list[Step]:
    """Return the steps of Expedite: after a few blocks the tokens become clusters.

    The paper clusters after a block, with attention that does not know the sizes of clusters. Ours: before its MLP;
    that they weigh as the patches that they stand for; that clusters can be clustered again.

    Args:
        network: the transformer.
        blocks: where, from 0; by default one, 5 of 12 or 10 of 24.
        proportional: whether a cluster weighs in attention as the patches that it stands for.
        iterations: rounds of soft k-means; of none, cells are pooled as they are.
        neighbors: clusters that a patch is reconstructed from.
        sharpness: how much nearer clusters are preferred, in both.
        **amount: ``keep_rate``, ``r`` or ``budget``, see :func:`.plan`. Each axis shrinks by the same share, so that
            the count is only near to the one that is asked for.

    Raises:
        ValueError: an option that cannot be.
    """
    for name, value, least in (('iterations', iterations, 0), ('neighbors', neighbors, 1)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f'{name}={value!r} must be an integer of at least {least}')
    if not isinstance(sharpness, (int, float)) or not sharpness > 0:
        raise ValueError(f'sharpness={sharpness!r} must be above 0')
    options = dict(iterations=iterations, neighbors=neighbors, sharpness=float(sharpness))

    def make(layer: int, amounts: Sequence[Amount]) -> Step:
        return Expedite(amounts[: layer + 1], proportional, **options)

    return plan(network, make, amount, blocks, default=(network.num_layers * 5 // 12,))
