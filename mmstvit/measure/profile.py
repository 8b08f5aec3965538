"""Profile a network part by part."""

import contextlib
import functools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn as nn
from rich.table import Table

from ..console import readable, table_of_numbers
from .complexity import Part, count
from .figures import entering
from .timing import Job, clock


@contextlib.contextmanager
def _timed(modules: Sequence[nn.Module], device: torch.device) -> Iterator[list[float]]:
    """Sum up the seconds between entering and leaving each module; a GPU is synchronised at both."""
    durations, begun, now = [0.0] * len(modules), [0.0] * len(modules), clock(device)

    def enter(i: int, *_: Any) -> None:
        begun[i] = now()

    def leave(i: int, *_: Any) -> None:
        durations[i] += now() - begun[i]

    with contextlib.ExitStack() as stack:
        for i, module in enumerate(modules):
            stack.enter_context(module.register_forward_pre_hook(functools.partial(enter, i)))
            stack.enter_context(module.register_forward_hook(functools.partial(leave, i)))
        yield durations


def profile_parts(job: Job, rounds: int) -> list[dict]:
    """Time the parts of a network, as ``get_flops.py`` shows them.

    Args:
        job: the network on a batch.
        rounds: runs.

    Returns:
        For each part its name, tokens and multiply-adds of the batch, and the median of its seconds; the last, without
        a name, is all that lies outside them.
    """
    with torch.no_grad():
        counted = count(job.inputs.run, job.timing.part, module=job.called)
    named = dict(job.called.named_modules())
    # A part that was not called has no time.
    parts = [part for part in counted.parts if part.name and part.multiply_adds]
    rest = counted.multiply_adds - sum(part.multiply_adds for part in parts)
    seconds = []
    for _ in range(rounds):
        with _timed([named[part.name] for part in parts], job.device) as durations:
            whole = job.seconds(1)
        seconds.append([*durations, whole - sum(durations)])
    medians = [statistics.median(column) for column in zip(*seconds)]
    return [dict(asdict(part), seconds=t) for part, t in zip([*parts, Part('', rest, 0)], medians, strict=True)]


def profile_table(network: str, batch: int, parts: Sequence[dict]) -> Table:
    """Make a table of the parts with their shares of the time, and the rate at which each multiplies and adds."""
    heads = ('part', 'input', 'tokens', 'multiply-adds', 'ms', 'share', 'G multiply-adds a second')
    table = table_of_numbers(*heads, title=f'{network}, batch {batch}')
    whole = sum(part['seconds'] for part in parts)
    for entry in parts:
        part = Part(**{key: value for key, value in entry.items() if key != 'seconds'})
        seconds = entry['seconds']
        table.add_row(
            part.name or 'outside these',
            *entering(part),
            readable(part.multiply_adds),
            f'{1000 * seconds:.2f}',
            f'{seconds / whole:.1%}',
            f'{part.multiply_adds / seconds / 1e9:.1f}' if part.multiply_adds and seconds > 0 else '',
        )
    return table
