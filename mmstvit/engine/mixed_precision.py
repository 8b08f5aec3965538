"""Inference in bfloat16 or float16 by autocast."""

import functools
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import nn

from ..errors import UsageError


def check_dtype(dtype: torch.dtype, device: str) -> None:
    """Raise :class:`UsageError` for a data type that inference on a device cannot compute in.

    Args:
        dtype: float32 or that of autocast.
        device: its type, ``'cpu'`` or ``'cuda'``.
    """
    name = str(dtype).removeprefix('torch.')
    dtypes = ('float32', 'bfloat16') if device == 'cpu' else ('float32', 'bfloat16', 'float16')
    if name not in dtypes:
        raise UsageError(f'dtype={name} is not for inference on {device}: take {" or ".join(dtypes)}')
    if device == 'cuda' and name == 'bfloat16' and not torch.cuda.is_bf16_supported():
        raise UsageError('dtype=bfloat16 is not for inference on this GPU: take float32 or float16')


def autocast_tests(model: nn.Module, dtype: torch.dtype) -> None:
    """Let a model's test step compute in a data type by autocast; predictions are float32 again.

    Args:
        model: of one of the toolboxes, in its wrapper.
        dtype: with ``torch.float32`` the model stays as it is.

    Raises:
        UsageError: its device cannot compute in it.
    """
    if dtype is torch.float32:
        return
    device = next(model.parameters()).device.type
    check_dtype(dtype, device)
    step: Any = model.test_step  # mmengine's loops switch off what they are called in

    @functools.wraps(step)
    def test_step(data: Any) -> Any:
        with torch.autocast(device, dtype):
            samples = step(data)
        return [_float32(sample) for sample in samples]

    model.test_step = test_step  # type: ignore[assignment]


def _float32(sample: Any) -> Any:
    """Replace half-precision numbers of a data sample: metrics use NumPy, which has no bfloat16."""
    if isinstance(sample, BaseDataElement):
        for name, value in sample.items():
            if isinstance(value, BaseDataElement):
                _float32(value)
            elif getattr(value, 'dtype', None) in (torch.bfloat16, torch.float16):
                setattr(sample, name, value.float() if torch.is_tensor(value) else value.to(torch.float32))
    return sample
