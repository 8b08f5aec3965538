"""The numbers that products are computed in, by a tensor's own type or by autocast."""

import contextlib

import torch
from torch import Tensor


def _autocast_is_on(device: str) -> bool:
    """Return whether products on a type of device are autocast; the meta device, used for counting, has none."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type that products with a tensor are computed in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if _autocast_is_on(device) else x.dtype


def full_precision(x: Tensor) -> contextlib.AbstractContextManager:
    """Disable autocast on a tensor's device, where it is on."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if _autocast_is_on(device) else contextlib.nullcontext()
