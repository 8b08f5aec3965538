"""Time networks in turn, and summarise the times."""

import re
import statistics
import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..apis.models import chosen_device
from ..errors import UsageError
from .inputs import Inputs
from .memory import peak_bytes
from .networks import Network

DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
WARM_UP = 3  # runs that are not timed, unless said


@dataclass(frozen=True)
class Timing:
    """How networks are run and how often.

    Attributes:
        device: ``'cpu'``, ``'cuda'`` or ``'cuda:1'``.
        part: ``'model'``, its ``'backbone'`` alone, or ``None`` for the backbone of detectors and else the model.
        dtype: one of ``DTYPES``, all but float32 by autocast.
        compile: whether ``torch.compile`` is used, for each batch size anew.
        train_step: whether a training step is timed: forward, loss, backward, AdamW.
        rounds: how often each network has its turn.
        min_time: the least seconds that a network is run for in a round.
        cast: whether in lower precision the weights are cast, as GPUs serve networks, in the place of autocast, which
            casts them in each run anew; the network stays cast.
        graph: whether the forward is captured in a CUDA graph once, and that is run.

    Raises:
        mmstvit.errors.UsageError: a setting that does not fit the machine or the others.
    """

    device: str | torch.device = 'cpu'
    part: str | None = 'model'
    dtype: str = 'float32'
    compile: bool = False
    train_step: bool = False
    rounds: int = 11
    min_time: float = 0.3
    cast: bool = False
    graph: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r'cpu|cuda(:\d+)?', str(self.device)):
            raise UsageError(f'device {self.device}: give cpu, cuda, or cuda:1 for the second GPU')
        chosen_device(self.device)
        if self.rounds < 1 or self.min_time < 0:
            raise UsageError('rounds must be at least 1, and the time of a round at least 0')
        if not self.on_gpu and self.dtype == 'float16':
            raise UsageError('float16 is for GPUs, CPUs compute most of it in float32: give bfloat16 or a GPU')
        if self.train_step and self.part == 'backbone':
            raise UsageError('a training step is of the whole network, which has the loss: give no part, or the model')
        if self.cast and (self.train_step or self.dtype == 'float32'):
            raise UsageError('weights are cast to float16 or bfloat16, and in inference: training goes by autocast')
        if self.graph and (self.train_step or self.compile or not self.on_gpu):
            raise UsageError('a CUDA graph is of inference on a GPU that is not compiled')

    @property
    def on_gpu(self) -> bool:
        """Whether networks run on a GPU."""
        return torch.device(self.device).type == 'cuda'


class Job:
    """One network on one batch, ready to be timed.

    Args:
        network: what is run.
        shape: (channels, ...) of one input.
        batch: number of inputs.
        timing: how it is run; its ``part`` is not ``None``.
    """

    def __init__(self, network: Network, shape: Sequence[int], batch: int, timing: Timing) -> None:
        self.network, self.timing, self.device = network, timing, torch.device(timing.device)
        dtype = DTYPES[timing.dtype]
        self.autocast = dtype is not torch.float32 and not timing.cast
        if timing.cast:
            network.model.to(dtype)
        self.inputs = Inputs(network, shape, batch, self.device, dtype if timing.cast else None)
        network.model.train(timing.train_step)
        self.part = timing.part or 'model'
        self.optimizer: Any = None
        if timing.train_step:
            trained = [p for p in network.model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(trained, lr=1e-5)
            self.scaler = torch.amp.GradScaler(self.device.type, enabled=timing.dtype == 'float16')
        self.called = network.part(self.part)
        self.compiled = timing.compile or network.compiled
        if self.compiled:
            self.called.compile(dynamic=False)
        self.graph = None
        if timing.graph:
            self.run()  # libraries take their workspaces once
            self.peak = peak_bytes(self.run, self.device)
            self.graph = self._captured()

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Capture a forward; on a stream of its own it warms up first, as PyTorch asks for."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.run()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self.run()
        return graph

    def run(self) -> None:
        """Run one forward, or one training step."""
        if self.graph is not None:
            self.graph.replay()
            return
        # Its cache of weights must not outlive the capture of a graph.
        dtype, cached = DTYPES[self.timing.dtype], not self.timing.graph
        autocast = torch.autocast(self.device.type, dtype, enabled=self.autocast, cache_enabled=cached)
        if self.optimizer is None:
            with torch.inference_mode(), autocast:
                self.inputs.run(self.part)
            return
        with autocast:
            loss = self.inputs.loss()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def seconds(self, times: int) -> float:
        """Return the mean time of ``times`` runs."""
        return seconds_of(self.run, times, self.device)

    def times_a_round(self) -> int:
        """Warm up, and find how many runs take the least time of a round."""
        return runs_a_round(self.seconds, self.timing.min_time)

    def memory(self) -> int | None:
        """Return the bytes of weights, buffers and optimizer state, and the most that tensors take on top.

        ``None`` for the runtimes of exported files, which do not tell.
        """
        if self.network.exported:
            return None
        kept = [*self.network.model.parameters(), *self.network.model.buffers()]
        if self.optimizer is not None:
            kept += [x for state in self.optimizer.state.values() for x in state.values() if torch.is_tensor(x)]
        # The tensors of a graph are taken when it is captured.
        peak = self.peak if self.graph is not None else peak_bytes(self.run, self.device)
        return sum(x.nbytes for x in kept) + peak

    def close(self) -> None:
        """Leave the network as it was, for the next batch size."""
        if self.compiled:
            self.called._compiled_call_impl = None
            torch.compiler.reset()
        self.graph = None


def clock(device: torch.device) -> Callable[[], float]:
    """Return a function that tells the time in seconds, on a GPU once all that was started there has ended."""

    def now() -> float:
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def seconds_of(run: Callable[[], Any], times: int, device: torch.device) -> float:
    """Return the mean seconds of so many runs on a device, without garbage collection."""
    return timeit.timeit(run, timer=clock(device), number=times) / times


def runs_a_round(seconds: Callable[[int], float], min_time: float, warm_up: int = WARM_UP) -> int:
    """Warm up, and return how many runs take the least time of a round.

    Args:
        seconds: takes a number of runs and gives the seconds of one.
        min_time: seconds of a round, at the least.
        warm_up: runs that are not counted, the last of which says how many a round takes.
    """
    *_, last = [seconds(1) for _ in range(warm_up)]
    return max(1, round(min_time / last + 0.5))


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
    seconds: list[list[float]] = [[] for _ in timers]
    order = list(range(len(timers)))
    for _ in range(rounds):
        for i in order:
            seconds[i].append(timers[i](times[i]))
            done()
        order.reverse()
    return seconds


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> 'Spread':
        """Compute median and quartiles; of one number they are itself."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method='inclusive')
        return cls(median, low, high)

    def __format__(self, spec: str) -> str:
        return f'{self.median:{spec}} ({self.low:{spec}} - {self.high:{spec}})'


def summarise(seconds: Sequence[Sequence[float]], batch: int, baseline: int | Sequence[int]) -> list[dict[str, Spread]]:
    """Summarise the times of rounds.

    Args:
        seconds: of one run of each network, one number a round.
        batch: inputs of a run.
        baseline: which of the networks the others are compared with; or that of each.

    Returns:
        For each network ``seconds``, ``images_per_second`` and ``ratio``: how many times as fast as the baseline it is
        in the same round.
    """
    baselines = [baseline] * len(seconds) if isinstance(baseline, int) else baseline
    return [
        dict(
            seconds=Spread.of(own),
            images_per_second=Spread.of([batch / t for t in own]),
            ratio=Spread.of([base / t for base, t in zip(seconds[i], own, strict=True)]),
        )
        for own, i in zip(seconds, baselines, strict=True)
    ]
