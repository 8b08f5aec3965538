"""Exported files, each in its runtime on the CPU: ONNX Runtime, OpenVINO, and of ``torch.export`` PyTorch.

This file needs NumPy and the runtime of the file that is opened, and nothing else of mmstvit.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

ENDINGS = ('.onnx', '.xml', '.pt2')
# Where the metadata stands in files of OpenVINO and torch.export; an ONNX file has an entry for each key.
RT_INFO, EXTRA_FILE = ['mmstvit', 'metadata'], 'mmstvit.json'
# Names of the axes that are left open.
BATCH, SIZES = 'batch', ('height', 'width')


class InputError(Exception):
    """Something the user can mend; its text is one line that says how."""


@dataclass(frozen=True)
class Opened:
    """A network in its runtime.

    Attributes:
        runtime: its name, e.g. ``'ONNX Runtime'``.
        version: of the runtime.
        shape: of the input, (B, C, *size); what is open is a name or ``None``.
        outputs: their names.
        metadata: what the file says beside the network, empty where it is of another program.
        precision: what is computed in where a number's type is not fixed by the file: ``'float32'`` or ``'bfloat16'``.
        run: takes (B, C, *size), float32, and gives the outputs in order.
    """

    runtime: str
    version: str
    shape: list[int | str | None]
    outputs: list[str]
    metadata: dict[str, Any]
    precision: str
    run: Callable[[np.ndarray], list[np.ndarray]]


def open_model(
    path: str | Path,
    threads: int | None = None,
    shape: Sequence[int] | None = None,
    precision: str | None = None,
    trust: bool = False,
) -> Opened:
    """Open an exported file on the CPU.

    Args:
        path: the file, whose ending tells the runtime.
        threads: threads of an operator, by default as the runtime chooses.
        shape: (B, C, *size) of the inputs to come, by default what the file leaves open stays open.
        precision: in which OpenVINO computes, ``'float32'`` or ``'bfloat16'``; by default as the file says.
        trust: whether code in a ``.pt2`` file may run, which PyTorch unpickles.

    Raises:
        InputError: it is not there, or no model, or its runtime is not installed.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise InputError(f'{path} is no exported model: their names end in {", ".join(ENDINGS)}')
    if not path.is_file():
        raise InputError(f'there is no model {path}')
    if path.suffix == '.xml':
        return _open_openvino(path, threads, shape, precision)
    if path.suffix == '.pt2':
        return _open_program(path, threads, trust)
    return _open_onnx(path, threads, shape)


def read_metadata(opened: Opened, path: str | Path) -> dict[str, Any]:
    """Return what the export has written into the file beside the network.

    Raises:
        InputError: the file is of another program.
    """
    if 'mmstvit_version' not in opened.metadata:
        raise InputError(f'{path} does not say how images are prepared: export it with tools/deployment/export.py')
    return opened.metadata


def _open_onnx(path: Path, threads: int | None, shape: Sequence[int] | None) -> Opened:
    onnxruntime = _needed('onnxruntime', '.onnx')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads is not None:
        options.intra_op_num_threads = threads
    if shape is not None:
        for name, size in zip((BATCH, *SIZES), (shape[0], *shape[-2:])):
            options.add_free_dimension_override_by_name(name, size)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # onnxruntime has exceptions of its own for each kind of fault
        raise InputError(f'{path} is no ONNX model: {_one_line(error)}') from error
    node, names = session.get_inputs()[0], [output.name for output in session.get_outputs()]
    entries = session.get_modelmeta().custom_metadata_map
    metadata = {key: json.loads(value) for key, value in entries.items()} if 'mmstvit_version' in entries else {}

    def run(x: np.ndarray) -> list[np.ndarray]:
        return session.run(None, {node.name: x})

    return Opened('ONNX Runtime', onnxruntime.__version__, node.shape, names, metadata, 'float32', run)


def refuse_telemetry() -> None:
    """Keep OpenVINO and nncf from reporting their use to their makers, which they do unless told otherwise."""
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]  # as if that package were not installed


def import_openvino() -> ModuleType:
    """Import OpenVINO, without its telemetry.

    Raises:
        InputError: it is not installed.
    """
    refuse_telemetry()
    return _needed('openvino', '.xml')


def _open_openvino(path: Path, threads: int | None, shape: Sequence[int] | None, precision: str | None) -> Opened:
    openvino = import_openvino()
    core = openvino.Core()
    try:
        model = core.read_model(path)
        metadata = json.loads(model.get_rt_info(RT_INFO).value) if model.has_rt_info(RT_INFO) else {}
        if shape is not None:
            model.reshape(list(shape))
        # Left to itself OpenVINO takes bfloat16 where the processor has it.
        dtype = precision or metadata.get('precision', 'float32')
        settings: dict[str, Any] = {
            'INFERENCE_PRECISION_HINT': 'bf16' if dtype == 'bfloat16' else 'f32',
            'PERFORMANCE_HINT': 'LATENCY',
        }
        if threads is not None:
            settings['INFERENCE_NUM_THREADS'] = threads
        compiled = core.compile_model(model, 'CPU', settings)
    except RuntimeError as error:
        raise InputError(
            f'{path} is no model of OpenVINO, or its *.bin is not beside it: {_one_line(error)}'
        ) from error
    dims = [None if dim.is_dynamic else dim.get_length() for dim in model.inputs[0].partial_shape]
    request, names = compiled.create_infer_request(), [output.any_name for output in model.outputs]

    def run(x: np.ndarray) -> list[np.ndarray]:
        request.infer([x], share_inputs=True)
        return [request.get_output_tensor(i).data.copy() for i in range(len(names))]

    taken = compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()
    version = openvino.get_version().split('-')[0]
    return Opened('OpenVINO', version, dims, names, metadata, 'bfloat16' if taken == 'bf16' else 'float32', run)


def _open_program(path: Path, threads: int | None, trust: bool) -> Opened:
    torch = _needed('torch', '.pt2')
    if not trust:
        raise InputError(
            f'PyTorch unpickles {path}, so that code in it runs: give --trust-checkpoint if you know who made it'
        )
    if threads is not None:
        torch.set_num_threads(threads)
    extra = {EXTRA_FILE: ''}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'The given buffer is not writable')  # nobody writes to the weights
            program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # of zip files, of pickles, of JSON
        raise InputError(f'{path} is no program of torch.export: {_one_line(error)}') from error
    metadata = json.loads(extra[EXTRA_FILE] or '{}')
    module = program.module(check_guards=False)
    (name,) = program.graph_signature.user_inputs
    value = next(node.meta['val'] for node in program.graph.nodes if node.name == name)

    def run(x: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(x))
        return [y.numpy() for y in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]

    shape: list[int | str | None] = [n if isinstance(n, int) else None for n in value.shape]
    names = metadata.get('outputs') or [f'output_{i}' for i in range(len(program.graph_signature.user_outputs))]
    return Opened('torch.export', torch.__version__, shape, names, metadata, 'float32', run)


def _needed(package: str, ending: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f'{package} is needed for a *{ending} file: pip install {package} ({error})') from error


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())
