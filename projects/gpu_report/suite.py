"""Run the suite: each entry becomes rows, written at once; what fails is a row with its error, and the run goes on."""

import copy
import datetime
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from mmstvit import models
from mmstvit.errors import UsageError, one_line
from mmstvit.io.files import write_json
from mmstvit.measure.networks import Network, input_shape, load_network, reduce_network
from mmstvit.measure.report import environment
from mmstvit.measure.speed import costs, measure
from mmstvit.measure.timing import DTYPES, Job, Timing

from . import parity
from .entries import BARE, Entry
from .kernels import attention_kernels, text_of
from .time_limit import OutOfTime, at_most

ROUNDS, MIN_TIME = 7, 0.05  # of each network and entry: quartiles of seven, and half a second at the least
ENTRY_SECONDS = 150  # an entry that takes longer is given up
WORDS = 200  # characters of an error


def load(name: str) -> Network:
    """Build a network of an entry that is not reduced, see :class:`.Entry`."""
    if name in BARE:
        kind, options, size = BARE[name]
        return Network(name, 'mmstvit', getattr(models, kind)(**options).eval(), size)
    return load_network(name)


class Suite:
    """A run of the suite on a device.

    Args:
        device: ``'cpu'``, ``'cuda'`` or ``'cuda:1'``.
        rounds: how often each network has its turn.
        min_time: seconds that it is run for in a round, at the least.
    """

    def __init__(self, device: str, rounds: int = ROUNDS, min_time: float = MIN_TIME) -> None:
        self.timing = Timing(device, rounds=rounds, min_time=min_time)
        self.plain: dict[str, Network] = {}
        self.networks: dict[str, tuple[Network, dict]] = {}

    def rows(self, entry: Entry) -> list[dict]:
        """Measure an entry; what fails is a row with ``error``."""
        name, device = entry.networks[0], self.timing.device
        if entry.section == 'parity':
            dtypes = [dtype for dtype in DTYPES if self.timing.on_gpu or dtype != 'float16']
            return [_checked(name, dtype, parity.difference, name, dtype, device) for dtype in dtypes]
        if entry.section == 'operators':
            return [_checked(name, 'float32', parity.operator_difference, name, device)]
        if entry.section == 'detector':
            return [_checked(name, 'float32', parity.try_detector, device)]
        return self._timed(entry)

    def _timed(self, entry: Entry) -> list[dict]:
        """Time the networks of an entry in turn; where that fails, each beside the peer alone, to find which."""
        try:
            return self._in_turn(entry, entry.networks)
        except Exception as error:  # whatever it is, the others are measured
            message = message_of(error)
        self.forget()
        if len(entry.networks) <= 2 or self.in_error():
            return [dict(network=name, dtype=entry.dtype, error=message) for name in entry.networks]
        peer, *others = entry.networks
        pairs = [self._timed(replace(entry, networks=(peer, other))) for other in others]
        measured = [pair[0] for pair in pairs if 'error' not in pair[0]]
        return [measured[0] if measured else pairs[0][0], *(pair[1] for pair in pairs)]

    def _in_turn(self, entry: Entry, names: Sequence[str]) -> list[dict]:
        timing = replace(
            self.timing,
            part=entry.part,
            dtype=entry.dtype,
            compile=entry.section == 'compile',
            train_step=entry.section == 'train',
            cast=entry.cast and entry.dtype != 'float32',
            graph=entry.section == 'graph',
        )
        precision = 'float32' if entry.dtype == 'float32' else 'cast' if entry.cast else 'autocast'
        loaded = [self._network(name, entry.part) for name in names]
        networks = [network for network, _ in loaded]
        shape = input_shape(networks[0], None)
        rows = measure(networks, 0, shape, entry.batch, timing, Progress(disable=True), _kernels)
        for row, (_, cost) in zip(rows, loaded, strict=True):
            row.update(cost, dtype=entry.dtype, precision=precision, input=' x '.join(map(str, shape)))
        return rows

    def _network(self, name: str, part: str) -> tuple[Network, dict]:
        """Return a network on the device, in float32 and without gradients, and what it costs."""
        if (name, part) not in self.networks:
            network = self._built(name)
            self.networks[name, part] = network, costs(network, input_shape(network, None), part, self.timing.device)
        network, cost = self.networks[name, part]
        network.model.float().zero_grad(set_to_none=True)
        return network, cost

    def _built(self, spec: str) -> Network:
        """Build a network on the device; reduced ones are copies of the plain one, which takes seconds to make."""
        name, _, reduction = spec.partition('+')
        if name not in self.plain:
            self.plain[name] = load(name)
            self.plain[name].model.to(self.timing.device)
        if not reduction:
            return self.plain[name]
        return reduce_network(copy.deepcopy(self.plain[name]), reduction)

    def forget(self) -> None:
        """Free all networks, and what the device keeps."""
        self.networks.clear()
        self.plain.clear()
        gc.collect()
        if self.timing.on_gpu and not self.in_error():
            torch.cuda.empty_cache()

    def in_error(self) -> bool:
        """Whether the GPU is in error, from which only a new process helps."""
        if not self.timing.on_gpu:
            return False
        try:
            torch.zeros(1, device=self.timing.device).add_(1).item()
        except Exception:  # any: nothing can be computed
            return True
        return False


def _checked(name: str, dtype: str, check: Callable[..., dict], *args: Any) -> dict:
    """Return the row of a check that gives a ``value``, its ``limit`` or a ``note``."""
    row = dict(network=name, dtype=dtype)
    try:
        row.update(check(*args))
    except Exception as error:  # whatever it is, the others are measured
        return row | dict(error=message_of(error))
    if row['value'] > row.get('limit', float('inf')):
        row['error'] = f'differs by {row["value"]:.2g} spreads from the CPU, more than {row["limit"]:.2g}'
    return row


def _kernels(job: Job) -> dict:
    """Look at the attention of a job; a graph has no operators, and is that of the forward it was captured of."""
    graph, job.graph = job.graph, None
    try:
        return dict(kernel=text_of(attention_kernels(job.run, job.device)))
    except RuntimeError as error:  # a profiler without rights on this machine
        return dict(kernel=f'unknown: {message_of(error)}')
    finally:
        job.graph = graph


def message_of(error: BaseException) -> str:
    """Return an error in one short line, with its type."""
    return f'{type(error).__name__}: {one_line(error)}'[:WORDS]


def run_suite(
    wanted: Sequence[Entry],
    suite: Suite,
    minutes: float,
    path: str | Path,
    written: Callable[[dict], None] = lambda report: None,
    command: str = '',
) -> dict[str, Any]:
    """Measure entries in their order until the time is over.

    A file that an earlier run on the same machine has left is gone on with: what failed there comes last.

    Args:
        wanted: the entries.
        suite: measures them.
        minutes: none is begun after that, and one at work is given up.
        path: JSON file, written after each entry.
        written: called with the report after each entry too.
        command: what was run, told in the report.

    Returns:
        ``environment``, ``command``, ``date``, ``entries``: key -> its ``rows``, ``mode``, ``section``, ``batch``; and
        ``not_run``, keys of what was not reached.

    Raises:
        mmstvit.errors.UsageError: the file is of another machine.
    """
    start, setting = time.monotonic(), environment(suite.timing, (), '')
    report = _begun(Path(path), setting)
    report.update(environment=setting, command=command, date=datetime.date.today().isoformat())
    done = report['entries']

    def write() -> None:
        report['not_run'] = [e.key for e in wanted if e.key not in done]
        write_json(path, report)
        written(report)

    failed = [e for e in wanted if any('error' in row for row in done.get(e.key, {}).get('rows', ()))]
    for entry in [e for e in wanted if e.key not in done] + failed:
        left = 60 * minutes - (time.monotonic() - start)
        if left <= 0:
            break
        rows = _rows_within(left, suite, entry)
        if rows is None:
            break
        done[entry.key] = dict(section=entry.section, mode=entry.mode, batch=entry.batch, rows=rows)
        write()
        errors = [row['error'] for row in rows if 'error' in row]
        print(f'[{time.monotonic() - start:4.0f} s] {entry.key}: {errors[0] if errors else "done"}', file=sys.stderr)
        if errors and suite.in_error():
            print('the GPU is in error: run the command again, it goes on with the rest', file=sys.stderr)
            break
    write()
    return report


def _rows_within(left: float, suite: Suite, entry: Entry) -> list[dict] | None:
    """Measure an entry in the seconds that are left; ``None`` where they are too few."""
    limit = min(left, ENTRY_SECONDS)
    try:
        with at_most(limit):
            return suite.rows(entry)
    except OutOfTime:
        suite.forget()
    if limit == left:
        return None
    return [dict(network=name, dtype=entry.dtype, error=f'gave up after {limit} s') for name in entry.networks]


def _begun(path: Path, setting: dict) -> dict:
    """Read what an earlier run has left."""
    if not path.is_file():
        return dict(entries={})
    try:
        report = json.loads(path.read_text())
        machine = {name: report['environment'][name] for name in ('device', 'torch', 'mmstvit')}
        entries = report['entries']
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f'{path} is no file of results of the suite: name another') from error
    if machine != {name: setting[name] for name in machine}:
        raise UsageError(
            f'{path} is of another machine ({machine["device"]}, PyTorch {machine["torch"]}): name another'
        )
    return dict(entries=entries)
