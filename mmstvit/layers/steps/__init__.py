"""What a layer does with tokens: one file a method, and the methods by the names that configs give them.

A method is a function ``(num_layers, embed_dims, grid, **options) -> list of steps``: one step for each block of a
plain transformer with ``num_layers`` blocks of width ``embed_dims`` on a ``grid`` of image tokens.
"""

from collections.abc import Callable

from .base import SelfAttention, Step
from .stgm import Generation, Recovery, Refinement, TokenMapStep, stgm
from .tome import tome

METHODS: dict[str, Callable[..., list[Step]]] = {
    'STGM': stgm,
    'ToMe': tome,
}


def build_steps(reduce: dict | None, num_layers: int, embed_dims: int, grid: tuple[int, ...]) -> list[Step]:
    """Return one step for each block of a plain transformer.

    Args:
        reduce: the method, a dict with ``type``, a name in ``METHODS``, and options of its own; ``None`` for none.
        num_layers: blocks.
        embed_dims: channels C of the tokens.
        grid: image tokens along each axis.

    Raises:
        ValueError: an unknown method, or options that do not fit.
    """
    if reduce is None:
        return [SelfAttention() for _ in range(num_layers)]
    options = dict(reduce)
    name = options.pop('type', None)
    if name not in METHODS:
        raise ValueError(f'reduce=dict(type={name!r}) is unknown, choose from {tuple(METHODS)}')
    try:
        return METHODS[name](num_layers, embed_dims, grid, **options)
    except TypeError as error:  # an unknown option, or one that is missing
        raise ValueError(f'reduce=dict(type={name!r}): {str(error).removeprefix(METHODS[name].__name__)}') from error
