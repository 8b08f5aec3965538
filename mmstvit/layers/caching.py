"""Tensors that depend on sizes alone, made once for each."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

F = TypeVar('F', bound=Callable[..., Any])


def cached(maxsize: int) -> Callable[[F], F]:
    """Keep what a function makes for its arguments, the least recently used first to go.

    Tensors are kept as any later forward pass can use them: neither inference tensors, which training refuses, nor the
    fake ones of an export, in which they become constants. A graph of ``torch.compile`` makes its own.

    Args:
        maxsize: results that are kept.
    """

    def decorate(make: F) -> F:
        @functools.lru_cache(maxsize)
        def once(*args: Any) -> Any:
            with torch.inference_mode(False), unset_fake_temporarily():
                return make(*args)

        @functools.wraps(make)
        def get(*args: Any) -> Any:
            if torch.compiler.is_dynamo_compiling():
                return make(*args)
            if not torch.compiler.is_exporting() and type(torch.empty(0)) is not torch.Tensor:  # in FakeTensorMode
                return make(*args)
            return once(*args)

        return get  # type: ignore[return-value]

    return decorate
