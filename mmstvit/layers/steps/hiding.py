"""What training puts in the place of dropping tokens: they stay, and weigh next to nothing."""

from torch import Tensor

from ...functional.reduction import Reduction
from ..tokens import Tokens

# What a hidden token weighs: log 0 has no gradient, and near 0 that of a token that would be looked at much is so large
# that training does not converge (its gradient norms were in the hundreds with 1e-6).
FLOOR = 1e-3


def hide(tokens: Tokens, size: Tensor) -> Tokens:
    """Hide tokens from the attention and from means: those of a size of 0, whose gradients go on.

    Args:
        tokens: they stay in their places.
        size: (B, N, 1), with gradients.
    """
    there = size.detach() > 0.5

    def mask(x: Tensor) -> Tensor:
        return x * there

    size = size.where(there, size - size.detach() + FLOOR)
    return tokens._replace(size=size, trace=(*tokens.trace, Reduction(mask, mask)))
