"""Peak memory of the tensors of a computation."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(run: Callable[[], Any], device: str | torch.device = 'cpu') -> int:
    """Return the most memory that tensors take while ``run`` runs, over what was there before.

    On a CPU it is the sum of the tensors that are alive, told by PyTorch's profiler; what the libraries below PyTorch
    take for themselves is not in it. On a GPU it is what PyTorch's allocator handed out.
    """
    device = torch.device(device)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        run()
    events = record.profiler.kineto_results.events()
    return max(itertools.accumulate((e.nbytes() for e in events if e.name() == '[memory]'), initial=0))
