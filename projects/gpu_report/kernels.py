"""Which kernels attention took: told by PyTorch's profiler, since a mask or a dtype may rule the fast ones out."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# What operators of ATen and kernels of CUDA are called, and how they are called here. The first that fits counts.
_NAMES = {
    r'_scaled_dot_product_cudnn_attention|cudnn.*(sdpa|fmha|flash)': 'cudnn',
    r'_scaled_dot_product_flash_attention_for_cpu': 'flash (CPU)',
    r'_scaled_dot_product_flash_attention|flash_fwd|FlashAttnFwd': 'flash',
    r'_scaled_dot_product_efficient_attention|fmha_cutlass': 'efficient',
    r'_scaled_dot_product_(fused_)?attention_math': 'math',
}


def kind_of(name: str) -> str | None:
    """Return the kind of attention that an operator or a kernel is by its name, ``None`` for other names."""
    return next((kind for pattern, kind in _NAMES.items() if re.search(pattern, name)), None)


def attention_kernels(run: Callable[[], Any], device: str | torch.device = 'cpu') -> dict[str, int]:
    """Return how often each kind of attention is called in a run.

    Args:
        run: what is looked at; replayed CUDA graphs have no operators to look at.
        device: where it computes.

    Returns:
        Kinds and their calls, the most frequent first: ``'flash'``, ``'efficient'``, ``'cudnn'``, ``'math'``, on a CPU
        ``'flash (CPU)'``; ``'softmax'`` where there is no other, attention that is written out.
    """
    activities = [ProfilerActivity.CPU]
    if torch.device(device).type == 'cuda':
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, acc_events=True) as record:
        run()
        if len(activities) > 1:
            torch.cuda.synchronize(device)
    operators: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for name in (event.name() for event in record.profiler.kineto_results.events()):
        if kind := kind_of(name):
            (operators if name.startswith('aten::') else kernels)[kind] += 1
        elif name == 'aten::_softmax':
            others['softmax'] += 1
    # Operators are exact, one a call; kernels tell where a compiler has no operators left.
    return dict((operators or kernels or others).most_common())


def text_of(kernels: dict[str, int]) -> str:
    """Write the kinds of attention of a run in one cell: ``flash`` or ``efficient 11, flash 1``."""
    if len(kernels) == 1:
        return next(iter(kernels))
    return ', '.join(f'{kind} {calls}' for kind, calls in kernels.items())
