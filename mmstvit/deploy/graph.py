"""Write a network as an ONNX graph, and check the graph."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn as nn
from torch import Tensor

from ..errors import UsageError
from .run_onnx import open_session

OPSET = 18
# Largest difference between the two programs that is let pass, as a share of the largest output.
TOLERANCE = 1e-4
# Names of the axes that are left open.
BATCH, SIZES = 'batch', ('height', 'width')

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


def _avg_pool(x: Tensor, size: Sequence[int]) -> Tensor:
    return _pool(x, size, torch.mean)


_MAX_POOLS = (aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
_POOLS = {
    **dict.fromkeys(_MAX_POOLS, _max_pool),
    **dict.fromkeys((aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default), _avg_pool),
}


def trace(module: nn.Module, example: Tensor, open_axes: dict[int, str]) -> torch.export.ExportedProgram:
    """Record the network at the example's size.

    Args:
        module: takes and gives tensors.
        example: an input (B, C, *size).
        open_axes: name of each axis that is to be left open.
    """
    # Who attends to whom is worked out once for a size and kept: recorded now, these tensors are constants.
    module(example)
    program = torch.export.export(
        module,
        (example,),
        dynamic_shapes=(dict.fromkeys(open_axes, torch.export.Dim.DYNAMIC),),
        strict=False,
        # The example has borders to pad and a table to resize, and both do no harm where there is nothing to do.
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    for node in program.graph.nodes:
        if node.target in _MAX_POOLS and any(user.args[1] == 1 and user.users for user in node.users):
            raise UsageError('the network asks where the maximum of a pooling bin was: this cannot be exported')
    return program.run_decompositions(_POOLS)


def write(
    program: torch.export.ExportedProgram,
    names: Sequence[str],
    open_axes: dict[int, str],
    metadata: dict[str, Any],
    path: Path,
) -> None:
    """Write a recorded network with its input ``input`` and its outputs ``names``.

    Args:
        program: of :func:`trace`.
        names: of the outputs.
        open_axes: as :func:`trace` was given them.
        metadata: what is to stand in the file beside the network, in JSON's types.
        path: the file.

    Raises:
        UsageError: the graph has an operator that is not to be trusted.
    """
    exported = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, input_names=['input'], output_names=list(names), verbose=False
    )
    model = exported.model_proto
    _name_axes(model, open_axes)
    check_operators(model)
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _name_axes(model: onnx.ModelProto, open_axes: dict[int, str]) -> None:
    """Rename the open axes, which have the tracer's symbols."""
    graph = model.graph
    axes = graph.input[0].type.tensor_type.shape.dim
    names = {axes[axis].dim_param: name for axis, name in open_axes.items()}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
    for axis, name in open_axes.items():
        if axes[axis].dim_param != name:
            raise UsageError(f'the network is made for one {name}: leave out its --dynamic option')


def operators(model: onnx.ModelProto) -> set[str]:
    """Return the types of operators in a graph, its functions and branches; foreign ones with their domain."""
    types = set()

    def walk(nodes: Sequence[onnx.NodeProto]) -> None:
        for node in nodes:
            types.add(f'{node.domain}::{node.op_type}' if node.domain else node.op_type)
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    walk(graph.node)

    walk(model.graph.node)
    for function in model.functions:
        walk(function.node)
    return types


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse operators that scatter, which runtimes have computed wrong without a word, and foreign ones.

    Raises:
        UsageError: there is one.
    """
    refused = sorted(name for name in operators(model) if name.startswith('Scatter') or '::' in name)
    if refused:
        raise UsageError(f'the network has operators that are not exported: {", ".join(refused)}')


@torch.no_grad()
def largest_difference(module: nn.Module, path: Path, shapes: Sequence[tuple[int, ...]]) -> float:
    """Run a file in ONNX Runtime beside the network on random inputs.

    Args:
        module: the network.
        path: the file.
        shapes: of the inputs.

    Returns:
        The largest difference, as a share of the largest value of its output.

    Raises:
        UsageError: outputs differ in shape, or by more than ``TOLERANCE``.
    """
    session = open_session(path)
    generator, largest = torch.Generator().manual_seed(0), 0.0
    for shape in shapes:
        x = torch.randn(shape, generator=generator)
        expected, got = _listed(module(x)), session.run(None, {'input': x.numpy()})
        if [tuple(e.shape) for e in expected] != [g.shape for g in got]:
            raise UsageError(f'for an input of {shape} ONNX Runtime gives {[g.shape for g in got]}: nothing is written')
        for e, g in zip(expected, got):
            difference = float(np.abs(e.numpy() - g).max() / max(np.abs(e.numpy()).max(), 1e-30))
            if not difference <= TOLERANCE:
                raise UsageError(
                    f'for an input of {shape} ONNX Runtime differs from PyTorch by {difference:.1e} of the largest '
                    f'output, more than {TOLERANCE}: nothing is written'
                )
            largest = max(largest, difference)
    return largest


def _listed(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
