"""Exported files as networks that are timed beside those of PyTorch."""

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..errors import UsageError
from ..measure.networks import Network, load_network
from ..measure.timing import Timing
from .formats import FORMATS
from .runtimes import InputError, open_model, read_metadata

PREFIXES = ('onnx:', 'openvino:')  # of networks that are named by their file


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
        self._open = functools.partial(open_model, path, threads, precision=precision)
        self._fixed, self.opened = fixed, self._open()
        self._shape: tuple[int, ...] | None = None

    def forward(self, x: Tensor) -> Any:
        """Normalised inputs (B, C, *size) -> the output, a list where there are several."""
        if self._fixed and self._shape != tuple(x.shape):
            self._shape = tuple(x.shape)
            self.opened = self._open(shape=self._shape)
        outputs = [torch.from_numpy(y) for y in self.opened.run(x.numpy())]
        return outputs[0] if len(outputs) == 1 else outputs


def load_networks(specs: list[str], timing: Timing) -> list[Network]:
    """Build networks by their short names, see ``SPECS``, or ``onnx:FILE`` and ``openvino:FILE``."""
    return [load_exported(spec, timing) if spec.startswith(PREFIXES) else load_network(spec) for spec in specs]


def load_exported(spec: str, timing: Timing) -> Network:
    """Load an exported file as a network, with as many threads as PyTorch has.

    Args:
        spec: ``onnx:FILE`` or ``openvino:FILE``.
        timing: how it is to be run.

    Raises:
        UsageError: there is no such file, it is not of a whole network, or a setting does not apply to it.
    """
    prefix, _, path = spec.partition(':')
    refuse_settings(spec, timing)
    if timing.part == 'backbone':
        raise UsageError(f'{spec} is run as it is: leave --part backbone out')
    if not path.endswith(FORMATS[prefix].ending):
        raise UsageError(f'{spec}: its file is named *{FORMATS[prefix].ending}')
    try:
        model = ExportedModel(Path(path), torch.get_num_threads())
        meta = read_metadata(model.opened, path)
    except InputError as error:
        raise UsageError(str(error)) from error
    if meta['task'] == 'features':
        raise UsageError(f'{spec} holds a backbone with its neck, which nothing here can be compared with')
    channels: Any = model.opened.shape[1]
    return Network(
        f'{prefix}:{Path(path).name}',
        prefix,
        model,
        tuple(meta['input_size']),
        channels=channels,
        stated=(meta['multiply_adds'], meta['parameters']),
        runtime=f'{model.opened.runtime} {model.opened.version}',
    )


def refuse_settings(what: str, timing: Timing) -> None:
    """Refuse settings that do not apply to exported files.

    Args:
        what: their name in the message.
        timing: the settings.

    Raises:
        UsageError: there is one.
    """
    if timing.on_gpu:
        raise UsageError(f'{what} is run on the CPU: give --device cpu')
    refused = {'--train-step': timing.train_step, '--compile': timing.compile, '--dtype': timing.dtype != 'float32'}
    for option, value in refused.items():
        if value:
            raise UsageError(f'{what} is run as it is: leave {option} out')
