"""Merging steps: tokens become their mean, weighted by the patches that each stands for."""

from torch import Tensor

from ...functional.reduction import Reduction, merge_weighted
from ..tokens import Tokens
from .base import Amount, ReducingStep


class Merge(ReducingStep):
    """Merge tokens between attention and MLP; a subclass says which.

    Args:
        amount: how much is merged.
        proportional: whether a token that stands for several patches weighs as those do in the attention of the blocks
            that follow (ToMe, arXiv 2210.09461, equation 1).

    Attributes:
        learns_sizes: whether tokens are shared out by weights that are learnt, so that sizes have gradients.
    """

    learns_sizes = False

    def __init__(self, amount: Amount, proportional: bool = True) -> None:
        super().__init__(amount)
        self.proportional = proportional

    def match(self, tokens: Tokens, k: Tensor) -> Reduction:
        """Return which tokens become one.

        Args:
            tokens: as they leave the attention, without gradients.
            k: keys of the attention (B, N, C / heads), the mean over heads.
        """
        raise NotImplementedError

    def combine(self, reduction: Reduction, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the merged tokens (B, M, C) and their sizes (B, M, 1)."""
        return merge_weighted(reduction, x, size)

    def reduce(self, tokens: Tokens, q: Tensor, k: Tensor, v: Tensor) -> Tokens:
        if self.removed_of(tokens) == 0:
            return tokens
        reduction = self.match(tokens._replace(x=tokens.x.detach()), k.detach().mean(dim=1))
        x, size = self.combine(reduction, tokens.x, tokens.size)
        size = size if self.learns_sizes else size.detach()
        return tokens.reduced(reduction, x, size)._replace(proportional=self.proportional)
