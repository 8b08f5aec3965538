"""Networks in several back ends, exported on the fly, to be timed side by side."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from rich.progress import Progress
from torch import Tensor

from ..errors import UsageError
from ..measure.inputs import Inputs
from ..measure.networks import Network, input_shape
from ..measure.speed import costs, default_part
from ..measure.timing import Timing
from .export import Exportable, check_shapes, record
from .formats import DTYPES, FORMATS, Recorded
from .int8 import quantise
from .network import ExportedModel, refuse_settings
from .runtimes import open_model
from .tracing import largest_difference

EAGER = 'eager'
# Back end -> the format of its file, whether that has 8-bit integers, and in what the rest of it is computed.
EXPORTED = {
    'onnx': ('onnx', False, 'float32'),
    'onnx-int8': ('onnx', True, 'float32'),
    'openvino': ('openvino', False, 'float32'),
    'openvino-bf16': ('openvino', False, 'bfloat16'),
    'openvino-int8': ('openvino', True, 'float32'),
}
BACKENDS = (EAGER, 'compiled', *EXPORTED)
CALIBRATED_ON = 16  # random batches: they settle the ranges of integers, on which the time does not depend


def on_backends(
    networks: Sequence[Network],
    baseline: int,
    names: Sequence[str],
    timing: Timing,
    batch_sizes: Sequence[int],
    shape: Sequence[int] | None,
    progress: Progress,
) -> tuple[list[Network], int]:
    """Return each network in each back end, eager first, and which of them is the baseline.

    Files are written for it, checked against PyTorch on two inputs, and removed when the networks are.

    Args:
        networks: of PyTorch.
        baseline: which of them the others are compared with.
        names: of ``BACKENDS``.
        timing: how they are to be run.
        batch_sizes: at which they are to be run: a network made for one is exported for that one.
        shape: of one input as of :func:`.input_shape`, by default that of the first network.
        progress: where progress is shown.

    Raises:
        UsageError: a setting does not apply to exported files, or a network cannot be exported.
    """
    refuse_settings('--backends', timing)
    part = timing.part or default_part(networks)
    backends = [EAGER, *(name for name in BACKENDS if name in names and name != EAGER)]
    if any(network.exported for network in networks):
        raise UsageError('--backends exports the networks itself: leave files of exported ones out')
    if part == 'model' and any(network.toolbox == 'mmdet' for network in networks):
        raise UsageError('--backends: of a detector the backbone is run, leave --part model out')
    for form, int8, _ in (EXPORTED[name] for name in backends if name in EXPORTED):
        FORMATS[form].require(int8)
    batch = batch_sizes[0] if len(set(batch_sizes)) == 1 else None
    task, exported = progress.add_task('exporting', total=len(networks) * len(backends)), []
    for network in networks:
        size = input_shape(network, shape or networks[0].size)
        files = _Files(network, size, part, batch)
        for name in backends:
            progress.update(task, description=f'{network.label}: {name}')
            exported.append(_in(name, network, size, part, files))
            progress.advance(task)
    return exported, baseline * len(backends)


class _Files:
    """The files of one network, each written when it is first asked for."""

    def __init__(self, network: Network, shape: Sequence[int], part: str, batch: int | None) -> None:
        self.shape, self.batch, inputs = shape, batch, Inputs(network, shape, 1)

        def run(_: nn.Module, x: Tensor) -> Any:
            inputs.images = inputs.formatted(x)
            outputs = inputs.run(part)
            return outputs if isinstance(outputs, Tensor) else tuple(outputs)

        self.called = Exportable(network.part(part), run).eval()
        self.temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # until nobody has it
        self.folder = Path(self.temporary.name)
        self.recorded: Recorded | None = None
        self.made: set[Path] = set()

    def get(self, form: str, int8: bool) -> Path:
        """Return the file of a format."""
        path = self.folder / f'{"int8" if int8 else "model"}{FORMATS[form].ending}'
        if path in self.made:
            return path
        self.recorded = self.recorded or record(self.called, self.shape, self.batch)
        FORMATS[form].write(self.recorded, path)
        if int8:
            self.get(form, False)  # it is checked
            size = CALIBRATED_ON, self.batch or 1, *self.shape
            images = torch.randn(size, generator=torch.Generator().manual_seed(0))
            quantise(path, list(images.numpy()), dict(weights='int8', precision='float32'))
        else:
            shapes = check_shapes(tuple(self.shape), self.batch, False)
            largest_difference(self.called, open_model(path), shapes, DTYPES['float32'][-1])
        self.made.add(path)
        return path


def _in(name: str, network: Network, shape: Sequence[int], part: str, files: _Files) -> Network:
    """Return a network in a back end."""
    if name == EAGER:
        return replace(network, backend=name)
    if name == 'compiled':
        return replace(network, backend=name, model=copy.deepcopy(network.model), compiled=True)
    form, int8, precision = EXPORTED[name]
    model = ExportedModel(files.get(form, int8), torch.get_num_threads(), fixed=True, precision=precision)
    if model.opened.precision != precision:
        raise UsageError(f'{name}: OpenVINO has no {precision} on this processor, leave it out')
    model.files = files.temporary  # type: ignore[assignment]  # they stay as long as it does
    cost = costs(network, shape, part)
    return Network(
        network.label,
        form,
        model,
        tuple(shape[1:]),
        channels=shape[0],
        stated=(cost['multiply_adds'], cost['parameters']),
        runtime=f'{model.opened.runtime} {model.opened.version}{" (int8 calibrated on random inputs)" if int8 else ""}',
        backend=name,
    )
