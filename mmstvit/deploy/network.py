"""An exported file as a network to be timed beside those of PyTorch."""

import argparse
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from ..errors import UsageError
from ..measure.networks import Network
from .run_onnx import InputError, onnx_runner, open_session, read_metadata


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
        """Normalised inputs (B, 3, *size) -> softmax scores (B, classes)."""
        return torch.from_numpy(self._run(x.numpy()))


def load_onnx(path: str, args: argparse.Namespace) -> Network:
    """A network from a file, with as many threads as PyTorch has.

    Args:
        path: the file.
        args: of the benchmark.

    Raises:
        UsageError: there is no such file, it is not of a whole network, or an option does not apply to it.
    """
    if args.device.type != 'cpu':
        raise UsageError(f'onnx:{path} is run on the CPU: give --device cpu')
    given = {
        '--train-step': args.train_step,
        '--compile': args.compile,
        '--dtype': args.dtype != 'float32',
        '--part backbone': args.part == 'backbone',
    }
    for option in (option for option, applies in given.items() if applies):
        raise UsageError(f'onnx:{path} is run as it is: leave {option} out')
    try:
        meta = read_metadata(open_session(path), path)
    except InputError as error:
        raise UsageError(str(error)) from error
    if meta['task'] != 'classification':
        raise UsageError(f'onnx:{path} holds a backbone with its neck, which nothing here can be compared with')
    if 'input_size' not in meta:
        raise UsageError(f'onnx:{path} is of an earlier version: export it anew')
    return Network(
        f'onnx:{Path(path).name}',
        'onnx',
        OnnxModel(path, torch.get_num_threads()),
        tuple(meta['input_size']),
        stated=(meta['multiply_adds'], meta['parameters']),
    )
