"""Exported files as networks that are timed beside those of PyTorch."""

from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..errors import UsageError
from ..measure.networks import Network, load_network
from ..measure.timing import Timing
from .formats import FORMATS
from .runtimes import InputError, Opened, open_model, read_metadata

# Networks by their file: what stands before the colon, and the ending.
PREFIXES = {name: FORMATS[name].ending for name in ('onnx', 'openvino')}


class ExportedModel(nn.Module):
    """An exported file, run by its runtime on the CPU.

    Args:
        path: the file.
        threads: of an operator.
        fixed: whether what the file leaves open is fixed to the shape of each input, for which the runtime then
            prepares anew; else it is run as it is.
        precision: as of :func:`.open_model`.
    """

    def __init__(self, path: Path, threads: int, fixed: bool = False, precision: str | None = None) -> None:
        super().__init__()
        self._settings, self._fixed = (path, threads), fixed
        self._precision = precision
        self._shape, self.opened = None, self._open(None)

    def _open(self, shape: tuple[int, ...] | None) -> Opened:
        return open_model(*self._settings, shape, self._precision)

    def forward(self, x: Tensor) -> Any:
        """Normalised inputs (B, C, *size) -> the output, a list where there are several."""
        if self._fixed and self._shape != tuple(x.shape):
            self._shape = tuple(x.shape)
            self.opened = self._open(self._shape)
        outputs = [torch.from_numpy(y) for y in self.opened.run(x.numpy())]
        return outputs[0] if len(outputs) == 1 else outputs


def load_networks(specs: list[str], timing: Timing) -> list[Network]:
    """Build networks by their short names, see ``SPECS``, or ``onnx:FILE`` and ``openvino:FILE``."""
    return [load_exported(spec, timing) if is_exported(spec) else load_network(spec) for spec in specs]


def is_exported(spec: str) -> bool:
    """Return whether a short name is of an exported file."""
    return spec.partition(':')[0] in PREFIXES and ':' in spec


def load_exported(spec: str, timing: Timing) -> Network:
    """Load an exported file as a network, with as many threads as PyTorch has.

    Args:
        spec: ``onnx:FILE`` or ``openvino:FILE``.
        timing: how it is to be run.

    Raises:
        UsageError: there is no such file, it is not of a whole network, or a setting does not apply to it.
    """
    prefix, _, path = spec.partition(':')
    refuse_settings(spec, timing, {'--part backbone': timing.part == 'backbone'})
    if not path.endswith(PREFIXES[prefix]):
        raise UsageError(f'{spec}: its file is named *{PREFIXES[prefix]}')
    try:
        model = ExportedModel(Path(path), torch.get_num_threads())
        meta = read_metadata(model.opened, path)
    except InputError as error:
        raise UsageError(str(error)) from error
    if meta['task'] == 'features':
        raise UsageError(f'{spec} holds a backbone with its neck, which nothing here can be compared with')
    if 'input_size' not in meta:
        raise UsageError(f'{spec} is of an earlier version: export it anew')
    return Network(
        f'{prefix}:{Path(path).name}',
        prefix,
        model,
        tuple(meta['input_size']),
        channels=model.opened.shape[1],
        stated=(meta['multiply_adds'], meta['parameters']),
        runtime=f'{model.opened.runtime} {model.opened.version}',
    )


def refuse_settings(what: str, timing: Timing, more: dict[str, bool] | None = None) -> None:
    """Refuse settings that do not apply to exported files.

    Args:
        what: their name in the message.
        timing: the settings.
        more: options, and whether they are given.

    Raises:
        UsageError: there is one.
    """
    if timing.on_gpu:
        raise UsageError(f'{what} is run on the CPU: give --device cpu')
    refused = {
        '--train-step': timing.train_step,
        '--compile': timing.compile,
        '--dtype': timing.dtype != 'float32',
        **(more or {}),
    }
    for option in (option for option, applies in refused.items() if applies):
        raise UsageError(f'{what} is run as it is: leave {option} out')
