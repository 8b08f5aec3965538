"""Write a recorded network as a file of ONNX, OpenVINO or ``torch.export``."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..compat.requires import require
from ..errors import UsageError, one_line
from ..io.files import unfinished
from .runtimes import EXTRA_FILE, RT_INFO, import_openvino, refuse_telemetry
from .tracing import quiet

if TYPE_CHECKING:
    import onnx
    import openvino

OPSET = 18
LARGEST_CONSTANT = 2**24  # elements: the largest mask of a Swin at 1,500 px has 7 million
# What is in a file of each --dtype: the type of its weights, that in which it is computed, and the largest difference
# from PyTorch's float32 that is let pass, as a share of the largest output.
DTYPES = {
    'float32': ('float32', 'float32', 1e-4),
    'float16': ('float16', 'float32', 1e-2),
    'bfloat16': ('float16', 'bfloat16', 1e-1),
}


@dataclass(frozen=True)
class Recorded:
    """A network as it is to be written.

    Attributes:
        program: of :func:`.trace`.
        outputs: names of its outputs.
        shape: of its input, -1 where it is open.
        open_axes: name of each axis of the input that is left open.
        metadata: what is to stand in the file beside it, in JSON's types.
    """

    program: torch.export.ExportedProgram
    outputs: Sequence[str]
    shape: list[int]
    open_axes: dict[int, str]
    metadata: dict[str, Any]


# --------------------------------------------------------------------------------------------------------------- ONNX
@quiet()
@torch.no_grad()  # with gradients attention has other strides, and the views of the program do not fit
def write_onnx(recorded: Recorded, path: Path) -> None:
    """Write an ONNX file with the input ``input``.

    Args:
        recorded: the network.
        path: the file.

    Raises:
        UsageError: the graph has an operator that is not to be trusted.
    """
    exported = torch.onnx.export(
        recorded.program,
        dynamo=True,
        opset_version=OPSET,
        input_names=['input'],
        output_names=list(recorded.outputs),
        verbose=False,
    )
    model = exported.model_proto
    if refused_operators(model):
        from onnxscript.optimizer import fold_constants

        # A mask that is drawn region by region, as Swin's in other libraries, is a constant.
        fold_constants(
            exported.model,
            input_size_limit=LARGEST_CONSTANT,
            output_size_limit=LARGEST_CONSTANT,
            should_fold=lambda node: node.op_type == 'ConstantOfShape' or None,
        )
        model = exported.model_proto
        check_operators(model)
    _name_axes(model, recorded.open_axes)
    save_onnx(model, recorded.metadata, path)


def save_onnx(model: 'onnx.ModelProto', metadata: dict[str, Any], path: Path) -> None:
    """Save an ONNX model with its metadata, checked."""
    import onnx

    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _name_axes(model: 'onnx.ModelProto', open_axes: dict[int, str]) -> None:
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


def operators(model: 'onnx.ModelProto') -> set[str]:
    """Return the types of operators in a graph, its functions and branches; foreign ones with their domain."""
    from onnxscript import ir

    whole = ir.from_proto(model)
    graphs = (whole.graph, *whole.functions.values())
    nodes = (node for graph in graphs for node in ir.traversal.RecursiveGraphIterator(graph))
    return {f'{node.domain}::{node.op_type}' if node.domain else node.op_type for node in nodes}


def refused_operators(model: 'onnx.ModelProto') -> list[str]:
    """Return those that scatter, which runtimes have computed wrong without a word, and foreign ones."""
    return sorted(name for name in operators(model) if name.startswith('Scatter') or '::' in name)


def check_operators(model: 'onnx.ModelProto') -> None:
    """Refuse a graph with operators of :func:`refused_operators`.

    Raises:
        UsageError: there is one.
    """
    refused = refused_operators(model)
    if refused:
        raise UsageError(f'the network has operators that are not exported: {", ".join(refused)}')


# ----------------------------------------------------------------------------------------------------------- OpenVINO
@quiet()
@torch.no_grad()
def write_openvino(recorded: Recorded, path: Path) -> None:
    """Write OpenVINO's ``*.xml`` and the ``*.bin`` beside it.

    Args:
        recorded: the network; ``weights`` of its metadata is the type that they are stored in.
        path: the file ``*.xml``.

    Raises:
        UsageError: the network has an operator that OpenVINO has not.
    """
    openvino = import_openvino()
    try:
        # Read as a program it has fewer operators than read from ONNX, but OpenVINO 2026.4 then knows no arithmetic of
        # open sizes, and computes Video Swin wrong.
        if 2 in recorded.open_axes or len(recorded.shape) == 5:
            with unfinished(path.with_suffix('.onnx')) as temporary:
                write_onnx(recorded, temporary)
                model = openvino.convert_model(temporary)
        else:
            model = openvino.convert_model(recorded.program)
        model.reshape(recorded.shape)
    except UsageError:
        raise
    except Exception as error:  # OpenVINO's are of several kinds
        raise UsageError(f'OpenVINO does not take this network: {one_line(error)}') from error
    model.inputs[0].set_names({'input'})
    for output, name in zip(model.outputs, recorded.outputs, strict=True):
        output.set_names({name})
    save_openvino(model, recorded.metadata, path)


def save_openvino(model: 'openvino.Model', metadata: dict[str, Any], path: Path) -> None:
    """Save a model of OpenVINO with its metadata."""
    model.set_rt_info(json.dumps(metadata), RT_INFO)
    import_openvino().save_model(model, path, compress_to_fp16=metadata['weights'] == 'float16')


# ------------------------------------------------------------------------------------------------------- torch.export
@quiet()
@torch.no_grad()
def write_program(recorded: Recorded, path: Path) -> None:
    """Write a ``*.pt2`` file of ``torch.export``.

    Args:
        recorded: the network.
        path: the file.
    """
    # What an example of borders to pad asserts of its size; the check of the file has other sizes, and sees it.
    graph = recorded.program.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    recorded.program.graph_module.recompile()
    extra = {EXTRA_FILE: json.dumps({**recorded.metadata, 'outputs': list(recorded.outputs)})}
    torch.export.save(recorded.program, path, extra_files=extra)


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        ending: of its files.
        runtime: that they are run by.
        packages: what writing and checking a file needs, and the extra of mmstvit that brings it.
        write: writes a :class:`Recorded` to a path.
        dtypes: of :data:`DTYPES`, those that it can be written in.
    """

    ending: str
    runtime: str
    packages: dict[str, str]
    write: Callable[[Recorded, Path], None]
    dtypes: tuple[str, ...] = ('float32',)

    def require(self, int8: bool = False) -> None:
        """Refuse to start without its packages.

        Raises:
            ImportError: one is not installed.
        """
        refuse_telemetry()
        for package, extra in {**self.packages, **({'nncf': 'openvino'} if int8 else {})}.items():
            require(package, extra, f'a *{self.ending} file')

    def files(self, path: Path) -> list[Path]:
        """Return the files of a model whose name is ``path``, which comes last."""
        return [path.with_suffix('.bin'), path] if self.ending == '.xml' else [path]

    def check_files(self, path: Path) -> None:
        """Refuse a name beside which a file would be written over one that is not of a model of that name.

        Raises:
            UsageError: there is such a file.
        """
        for beside in self.files(path)[:-1]:
            if beside.exists() and not path.exists():
                raise UsageError(f'{beside} would be written over, and belongs to no {path.name}: choose another name')


FORMATS = {
    'onnx': Format('.onnx', 'ONNX Runtime', dict.fromkeys(('onnx', 'onnxscript', 'onnxruntime'), 'deploy'), write_onnx),
    'openvino': Format('.xml', 'OpenVINO', {'openvino': 'openvino'}, write_openvino, tuple(DTYPES)),
    'torch-export': Format('.pt2', 'torch.export', {}, write_program),
}
