"""Record a network, and check what was written of it against it."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from ..errors import UsageError
from .runtimes import Opened

aten = torch.ops.aten


def _pool(x: Tensor, size: Sequence[int], reduce: Callable[..., Tensor]) -> Tensor:
    """Pool adaptively one axis after the other, bin by bin: ONNX has no such operator.

    Bin i of s along n tokens goes from floor(i n / s) to ceil((i + 1) n / s).
    """
    for axis, s in zip(range(x.dim() - len(size), x.dim()), size):
        n = x.shape[axis]
        if isinstance(n, int) and n % s == 0:
            x = reduce(x.unflatten(axis, (s, n // s)), axis + 1)
            continue
        bins = [x.narrow(axis, i * n // s, ((i + 1) * n + s - 1) // s - i * n // s) for i in range(s)]
        x = torch.cat([reduce(b, axis, keepdim=True) for b in bins], dim=axis)
    return x


def _max_pool(x: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    pooled = _pool(x, size, torch.amax)
    return pooled, torch.zeros_like(pooled, dtype=torch.long)  # where each is; :func:`trace` sees that nobody asks


_MAX_POOLS = (aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
_POOLS = {
    **dict.fromkeys(_MAX_POOLS, _max_pool),
    aten.adaptive_avg_pool2d.default: functools.partial(_pool, reduce=torch.mean),
    aten.adaptive_avg_pool3d.default: functools.partial(_pool, reduce=torch.mean),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that PyTorch gives of its own calls while it records and converts."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', r'`isinstance\(treespec, LeafSpec\)', FutureWarning)
        yield


def trace(module: nn.Module, example: Tensor, open_axes: dict[int, str]) -> torch.export.ExportedProgram:
    """Record the network at the example's size.

    Args:
        module: takes and gives tensors.
        example: an input (B, C, *size).
        open_axes: name of each axis that is to be left open.

    Raises:
        UsageError: the network is made for one value of an open axis, or cannot be exported.
    """
    # Who attends to whom is worked out once for a size and kept: recorded now, these tensors are constants.
    module(example)
    try:
        program = torch.export.export(
            module,
            (example,),
            dynamic_shapes=(dict.fromkeys(open_axes, torch.export.Dim.DYNAMIC),),
            strict=False,
            # The example has borders to pad and a table to resize, and both do no harm where there is nothing to do.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    except ValueError as error:
        fixed = [name for axis, name in open_axes.items() if f'.shape[{axis}]' in str(error)]
        if not fixed:
            raise
        raise UsageError(
            f'the network computes with one {" and ".join(fixed)} as a plain number: export it for one alone'
        ) from error
    for node in program.graph.nodes:
        if node.target in _MAX_POOLS and any(user.args[1] == 1 and user.users for user in node.users):
            raise UsageError('the network asks where the maximum of a pooling bin was: this cannot be exported')
    return program.run_decompositions(_POOLS)


@torch.no_grad()
def largest_difference(module: nn.Module, opened: Opened, shapes: Sequence[tuple[int, ...]], tolerance: float) -> float:
    """Run a file beside the network on random inputs.

    Args:
        module: the network.
        opened: the file.
        shapes: of the inputs.
        tolerance: the largest difference that is let pass, as a share of the largest output.

    Returns:
        The largest difference, as a share of the largest value of its output.

    Raises:
        UsageError: outputs differ in shape, or by more than the tolerance.
    """
    generator, largest = torch.Generator().manual_seed(0), 0.0
    for shape in shapes:
        x = torch.randn(shape, generator=generator)
        expected, got = _listed(module(x)), opened.run(x.numpy())
        if [tuple(e.shape) for e in expected] != [g.shape for g in got]:
            raise UsageError(
                f'for an input of {shape} {opened.runtime} gives {[g.shape for g in got]}: nothing is written'
            )
        for e, g in zip(expected, got):
            difference = float(np.abs(e.numpy() - g).max() / max(np.abs(e.numpy()).max(), 1e-30))
            if not difference <= tolerance:
                raise UsageError(
                    f'for an input of {shape} {opened.runtime} differs from PyTorch by {difference:.1e} of the largest '
                    f'output, more than {tolerance}: nothing is written'
                )
            largest = max(largest, difference)
    return largest


def _listed(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
