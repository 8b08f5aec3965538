"""Exported files as networks that are timed beside those of PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from ..errors import UsageError
from ..measure.networks import Network
from ..measure.timing import Timing
from .run_onnx import InputError, open_session, read_metadata


def onnx_runner(path: str | Path, threads: int | None = None) -> Callable[[np.ndarray], Any]:
    """Open a model as a function of its input.

    Args:
        path: the file.
        threads: as of :func:`.open_session`.

    Returns:
        What takes an array (N, C, *size), float32, and gives the output; a list where there are several.
    """
    session = open_session(path, threads)
    name = session.get_inputs()[0].name

    def run(inputs: np.ndarray) -> Any:
        outputs = session.run(None, {name: inputs})
        return outputs[0] if len(outputs) == 1 else outputs

    return run


class OnnxModel(nn.Module):
    """A file of tools/deployment/export_onnx.py, run by ONNX Runtime on the CPU.

    Args:
        path: the file.
        threads: of an operator.
    """

    def __init__(self, path: str, threads: int) -> None:
        super().__init__()
        self._run = onnx_runner(path, threads)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised inputs (B, C, *size) -> softmax scores (B, classes), of a segmentor for each pixel."""
        return torch.from_numpy(self._run(x.numpy()))


def load_onnx(path: str, timing: Timing) -> Network:
    """Load an exported file as a network, with as many threads as PyTorch has.

    Args:
        path: the file.
        timing: how it is to be run.

    Raises:
        UsageError: there is no such file, it is not of a whole network, or a setting does not apply to it.
    """
    if timing.on_gpu:
        raise UsageError(f'onnx:{path} is run on the CPU: give --device cpu')
    refused = {
        '--train-step': timing.train_step,
        '--compile': timing.compile,
        '--dtype': timing.dtype != 'float32',
        '--part backbone': timing.part == 'backbone',
    }
    for option in (option for option, applies in refused.items() if applies):
        raise UsageError(f'onnx:{path} is run as it is: leave {option} out')
    try:
        session = open_session(path)
        meta = read_metadata(session, path)
    except InputError as error:
        raise UsageError(str(error)) from error
    if meta['task'] == 'features':
        raise UsageError(f'onnx:{path} holds a backbone with its neck, which nothing here can be compared with')
    if 'input_size' not in meta:
        raise UsageError(f'onnx:{path} is of an earlier version: export it anew')
    return Network(
        f'onnx:{Path(path).name}',
        'onnx',
        OnnxModel(path, torch.get_num_threads()),
        tuple(meta['input_size']),
        channels=session.get_inputs()[0].shape[1],
        stated=(meta['multiply_adds'], meta['parameters']),
    )
