"""Timing of networks in turn, and what the times say."""

import argparse
import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.progress import Progress

from .complexity import count
from .memory import peak_bytes
from .networks import Inputs, Network

DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
WARM_UP = 3  # runs that are not timed, the last of which says how many a round takes


class Job:
    """One network on one batch, ready to be timed.

    Args:
        network: what is run.
        shape: (channels, ...) of one input.
        batch: number of inputs.
        args: of the command.
    """

    def __init__(self, network: Network, shape: Sequence[int], batch: int, args: argparse.Namespace) -> None:
        self.network, self.args = network, args
        self.inputs = Inputs(network, shape, batch, args.device)
        network.model.train(args.train_step)
        self.optimizer = self.scaler = None
        if args.train_step:
            trained = [p for p in network.model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(trained, lr=1e-5)
            self.scaler = torch.amp.GradScaler(args.device.type, enabled=args.dtype == 'float16')
        self.called = network.part(args.part)
        if args.compile:
            self.called.compile(dynamic=False)

    def run(self) -> None:
        """One forward, or one training step."""
        dtype = DTYPES[self.args.dtype]
        autocast = torch.autocast(self.args.device.type, dtype, enabled=dtype is not torch.float32)
        if self.optimizer is None:
            with torch.inference_mode(), autocast:
                self.inputs.run(self.args.part)
            return
        with autocast:
            loss = self.inputs.loss()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def seconds(self, times: int) -> float:
        """The mean time of one of ``times`` runs."""
        with _no_garbage_collection():
            if self.args.device.type == 'cuda':
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                for _ in range(times):
                    self.run()
                end.record()
                end.synchronize()
                return start.elapsed_time(end) / 1000 / times
            begin = time.perf_counter()
            for _ in range(times):
                self.run()
            return (time.perf_counter() - begin) / times

    def times_a_round(self) -> int:
        """Warm up, and find how many runs take the least time of a round."""
        taken = [self.seconds(1) for _ in range(WARM_UP)]
        return max(1, round(self.args.min_time / taken[-1] + 0.5))

    def memory(self) -> int | None:
        """Bytes of weights, buffers and optimizer state, and the most that tensors take on top.

        ``None`` for ONNX Runtime, which does not tell.
        """
        if self.network.toolbox == 'onnx':
            return None
        kept = [*self.network.model.parameters(), *self.network.model.buffers()]
        if self.optimizer is not None:
            kept += [x for state in self.optimizer.state.values() for x in state.values() if torch.is_tensor(x)]
        return sum(x.nbytes for x in kept) + peak_bytes(self.run, self.args.device)

    def close(self) -> None:
        """Leave the network as it was, for the next batch size."""
        if self.args.compile:
            self.called._compiled_call_impl = None
            torch.compiler.reset()


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def interleave(
    timers: Sequence[Callable[[int], float]], times: Sequence[int], rounds: int, done: Callable[[], Any] = lambda: None
) -> list[list[float]]:
    """Time several things in turn, forwards in one round and backwards in the next.

    Args:
        timers: each takes a number of runs and gives the seconds of one.
        times: runs of each in a round.
        rounds: how often each has its turn.
        done: called after each turn.

    Returns:
        For each the seconds of a run, one number a round.
    """
    taken = [[] for _ in timers]
    order = list(range(len(timers)))
    for _ in range(rounds):
        for i in order:
            taken[i].append(timers[i](times[i]))
            done()
        order.reverse()
    return taken


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> 'Spread':
        """Of one number the quartiles are itself."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method='inclusive')
        return cls(median, low, high)

    def __format__(self, spec: str) -> str:
        return f'{self.median:{spec}} ({self.low:{spec}} - {self.high:{spec}})'


def summarise(seconds: Sequence[Sequence[float]], batch: int, baseline: int) -> list[dict[str, Spread]]:
    """What the times of rounds say.

    Args:
        seconds: of one run of each network, one number a round.
        batch: inputs of a run.
        baseline: which of the networks the others are compared with.

    Returns:
        For each network ``seconds``, ``images_per_second`` and ``ratio``: how many times as fast as the baseline it is
        in the same round.
    """
    return [
        dict(
            seconds=Spread.of(own),
            images_per_second=Spread.of([batch / t for t in own]),
            ratio=Spread.of([base / t for base, t in zip(seconds[baseline], own, strict=True)]),
        )
        for own in seconds
    ]


def measure(
    networks: Sequence[Network],
    baseline: int,
    shape: Sequence[int],
    batch: int,
    args: argparse.Namespace,
    progress: Progress,
) -> list[dict]:
    """Time all networks at one batch size; one entry each, ready for JSON but for the costs."""
    task = progress.add_task(f'batch {batch}: warming up', total=len(networks) * (args.rounds + 1))
    jobs, times, memory = [], [], []
    for network in networks:
        job = Job(network, shape, batch, args)
        jobs.append(job)
        times.append(job.times_a_round())
        memory.append(job.memory())
        progress.advance(task)
    progress.update(task, description=f'batch {batch}: timing')
    seconds = interleave([job.seconds for job in jobs], times, args.rounds, lambda: progress.advance(task))
    for job in jobs:
        job.close()
    return [
        dict(
            network=network.label,
            toolbox=network.toolbox,
            batch_size=batch,
            runs_a_round=runs,
            rounds=own,
            peak_memory=peak,
            **{name: asdict(spread) for name, spread in summary.items()},
        )
        for network, runs, own, peak, summary in zip(
            networks, times, seconds, memory, summarise(seconds, batch, baseline), strict=True
        )
    ]


def costs(network: Network, shape: Sequence[int], args: argparse.Namespace) -> dict:
    """Multiply-adds of a forward of one input, parameters and top-1 of what is timed; ``None`` where unknown."""
    if network.stated:
        multiply_adds, parameters = network.stated
        known = network.size == tuple(shape[1:])
        return dict(multiply_adds=multiply_adds if known else None, parameters=parameters, top1=None)
    with torch.no_grad():
        counted = count(Inputs(network, shape, 1, args.device).run, args.part, module=network.part(args.part))
    top1 = network.top1 if network.size == tuple(shape[1:]) else None  # it was measured at that size
    return dict(multiply_adds=counted.multiply_adds, parameters=counted.parameters, top1=top1)
