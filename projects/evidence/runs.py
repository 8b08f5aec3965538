"""Trains and tests the runs of a plan by the real commands, several side by side.

A run that is finished is not repeated while its config has the same contents; one that was interrupted goes on from its
last checkpoint.
"""

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import psutil
import torch

from mmstvit.errors import UsageError
from mmstvit.measure.report import commit, cpu_name
from mmstvit.paths import package_data

from .pace import TRIAL, Pace, pace_of
from .plan import Run, as_typed, config_file, option_args
from .store import (
    config_path,
    fingerprint,
    finished,
    pack_right,
    read_config,
    read_json,
    result_path,
    versions,
    write_json,
)


class Stopped(Exception):
    """The run was ended from outside; it goes on next time."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def busy_share() -> float:
    """How much of the cores that this process may use is taken, 0 to 1, over five seconds of waiting."""
    used = psutil.cpu_percent(interval=5, percpu=True)
    own = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else range(len(used))
    return sum(used[core] for core in own) / len(own) / 100


def device_name() -> str:
    """What trains: the GPU where there is one, else the CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()


class Estimate:
    """How long runs take: as those of the same config did, else the stated minutes, scaled as the finished ones were.

    Args:
        done: finished runs with their seconds.
    """

    def __init__(self, done: Sequence[tuple[Run, float]] = ()) -> None:
        self.done = list(done)

    def seconds(self, run: Run) -> float:
        """The expected time of one run."""
        same = [seconds for other, seconds in self.done if other.config == run.config]
        if same:
            return sum(same) / len(same)
        stated = sum(60 * other.minutes for other, _ in self.done)
        return 60 * run.minutes * (sum(seconds for _, seconds in self.done) / stated if stated else 1)

    def left(self, run: Run, taken: float, share: float = 0.0) -> float:
        """The expected rest of a run that is at work.

        Args:
            run: which.
            taken: seconds so far.
            share: of its epochs that it has done in them, 0 to 1; where there are some, they tell more than other runs.
        """
        return taken * (1 - share) / share if share else max(0.0, self.seconds(run) - taken)

    def remaining(self, waiting: Sequence[Run], left: Sequence[float], jobs: int) -> float:
        """Seconds until all are finished.

        Args:
            waiting: runs that have not begun.
            left: seconds that those at work still need.
            jobs: runs side by side.
        """
        waits = [self.seconds(run) for run in waiting]
        return max([(sum(left) + sum(waits)) / jobs, *left, *waits])


class Crew:
    """Carries out runs, ``jobs`` at a time.

    Args:
        root: folder of everything that is kept.
        jobs: runs side by side; each gets its share of the cores.
        say: takes a line of progress.
        lock: file that the trainings inherit, see :func:`exclusive`.
        interval: seconds between lines of progress.
        environment: further variables of the commands.
        compiled: whether trainings compile the backbone.
    """

    def __init__(
        self,
        root: Path,
        jobs: int,
        say: Callable[[str], None],
        lock: int | None = None,
        interval: float = 60,
        environment: dict[str, str] | None = None,
        compiled: bool = False,
    ) -> None:
        self.root, self.jobs, self.say, self.lock, self.interval = root, jobs, say, lock, interval
        self.environment = environment or {}
        self.compiled = {'compile.target': 'backbone'} if compiled else {}
        self.threads = max(1, cores() // jobs)
        self.stopping = False
        self.processes: set[subprocess.Popen] = set()
        self.guard = threading.Lock()
        self.began: dict[Run, tuple[float, int]] = {}  # when, and after how many epochs
        self.epochs: dict[Run, int] = {}  # of the whole training

    def carry_out(self, runs: Sequence[Run]) -> dict[str, str]:
        """Finish all runs that are not; returns what went wrong, by the run's name."""
        hashes, failures, waiting, estimate = {}, {}, [], Estimate()
        for run in runs:
            try:
                cfg = read_config(run)
                hashes[run] = fingerprint(cfg)
                self.epochs[run] = run.epochs or (cfg.get('train_cfg') or {}).get('max_epochs', 0)
            except Exception as error:  # a config is a program: it may raise anything
                failures[run.name] = f'{config_path(run.config)}: {error}'
                self.say(f'FAILED {run.name}: {failures[run.name]}')
                continue
            result = finished(self.root, run, hashes[run])
            if result:
                estimate.done.append((run, result['seconds']))
            else:
                waiting.append(run)
        self.say(f'{len(runs)} runs: {len(estimate.done)} finished before, {len(waiting)} to do, {self.jobs} at a time')
        failures |= self._prepare_data(waiting)
        waiting = [run for run in waiting if run.name not in failures]
        failures |= self._work(waiting, hashes, estimate, len(runs))
        return failures

    def trial(self, runs: Sequence[Run]) -> list[tuple[Run, Pace]]:
        """Train each run for one epoch, ``jobs`` at a time, to see how fast it goes.

        Raises:
            UsageError: one fails.
        """
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = {run: pool.submit(self._pace, run) for run in runs}
            try:
                return [(run, future.result()) for run, future in futures.items()]
            except BaseException:
                self._stop(list(futures.values()))
                raise

    def _pace(self, run: Run) -> Pace:
        folder, start = self.root / 'trials' / run.name, time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, package_data() / 'tools/train.py', config_path(run.config), '--no-validate']
        command += ['--work-dir', folder, *option_args(run.overrides | self.compiled | TRIAL)]
        if self._call(command, folder / 'train.txt')[0]:
            raise UsageError(f'a trial of {run.name} failed: {last_line(folder / "train.txt")} (see {folder})')
        return pace_of(folder, time.monotonic() - start)

    def _prepare_data(self, runs: Sequence[Run]) -> dict[str, str]:
        """Make the data sets that the configs name a program for; it leaves alone what is there.

        What is to be fetched is left to the user: where it is missing, the training says how.
        """
        failed, makers = {}, {}
        for run in runs:
            command = read_config(run).get('prepare_data', '')
            if command.startswith('python '):
                makers.setdefault(command, []).append(run)
        for command, users in makers.items():
            words = shlex.split(command)
            words = [sys.executable, str(package_data() / words[1]), *words[2:]]
            log = self.root / 'logs' / f'{Path(words[1]).stem}.txt'
            self.say(f'data: {command}')
            if self._call(words, log)[0]:
                failed |= {run.name: f'its data could not be made, see {log}' for run in users}
                self.say(f'FAILED {command}: {last_line(log)} ({log})')
        return failed

    def _work(self, waiting: list[Run], hashes: dict[Run, str], estimate: Estimate, total: int) -> dict[str, str]:
        failures, waiting = {}, list(waiting)
        with ThreadPoolExecutor(self.jobs) as pool:
            futures: dict[Future, Run] = {pool.submit(self._finish, run, hashes[run]): run for run in waiting}
            try:
                while futures:
                    done, _ = wait(futures, timeout=self.interval, return_when=FIRST_COMPLETED)
                    for future in done:
                        run = futures.pop(future)
                        try:
                            result = future.result()
                            estimate.done.append((run, result['seconds']))
                            self.say(f'finished {run.name}: {_metrics_line(result)}')
                        except Exception as error:  # whatever it was, the others go on
                            failures[run.name] = str(error)
                            self.say(f'FAILED {run.name}: {error}')
                    self._progress(list(futures.values()), estimate, total, len(failures))
            except BaseException:
                self._stop(futures)
                raise
        return failures

    def _progress(self, unfinished: Sequence[Run], estimate: Estimate, total: int, failed: int) -> None:
        if not unfinished:
            return
        now = time.monotonic()
        with self.guard:
            running = {run: self.began[run] for run in unfinished if run in self.began}
        left, names = [], []
        for run, (start, first) in running.items():
            epoch, last = self._epochs(run), self.epochs.get(run, 0)
            # A resumed run tells by the epochs that it has done since.
            share = (epoch - first) / (last - first) if last > first else 0.0
            left.append(estimate.left(run, now - start, share))
            names.append(f'{run.name} (epoch {epoch} of {last} done, {(now - start) / 60:.0f} min)')
        left = estimate.remaining([run for run in unfinished if run not in running], left, self.jobs)
        trouble = f', {failed} failed' if failed else ''
        self.say(
            f'[{total - len(unfinished) - failed}/{total}{trouble}] about {duration(left)} left; now {", ".join(names)}'
        )

    def _epochs(self, run: Run) -> int:
        """Epochs that a training has done, from the checkpoints that it has left."""
        files = (self.root / 'runs' / run.name).glob('epoch_*.pth')
        return max([int(path.stem.rpartition('_')[2]) for path in files], default=0)

    def _stop(self, futures: Iterable[Future]) -> None:
        self.stopping = True
        for future in futures:
            future.cancel()
        with self.guard:
            for process in self.processes:
                process.terminate()

    def _finish(self, run: Run, config_hash: str) -> dict:
        """Train and test one run.

        Raises:
            Stopped: it was ended from outside.
            RuntimeError: a command failed; the text names its log.
        """
        if self.stopping:
            raise Stopped
        folder = self.root / 'runs' / run.name
        state = read_json(folder / 'evidence.json') or {}
        if (state.get('config_hash'), state.get('epochs')) != (config_hash, run.epochs) and folder.exists():
            shutil.rmtree(folder)  # of another config or length: its checkpoints are nothing to go on from
            state = {}
        state = {'config_hash': config_hash, 'seconds': 0.0, 'memory': 0, 'commits': [], 'epochs': run.epochs, **state}
        current = commit() or 'unknown'
        state['commits'] = [*(c for c in state['commits'] if c != current), current]
        write_json(folder / 'evidence.json', state)
        with self.guard:
            self.began[run] = time.monotonic(), self._epochs(run)

        tools, config = package_data() / 'tools', config_path(run.config)
        options = option_args(run.command_options)
        learned = option_args(run.command_options | self.compiled)
        train = [sys.executable, tools / 'train.py', config, '--work-dir', folder, '--resume', *learned]
        # Where time is short, the test at the end is all that is needed.
        self._step([*train, '--no-validate'] if run.epochs else train, folder, 'train', state)
        last = folder / 'last_checkpoint'
        if not last.is_file():
            raise RuntimeError(f'training left no checkpoint, see {folder / "train.txt"}')
        checkpoint = Path(last.read_text().strip())
        test = [sys.executable, tools / 'test.py', config, checkpoint]
        metrics, right = self._test([*test, '--work-dir', folder / 'test', *options], run, folder, state)
        for path in folder.glob('*.pth'):
            if path.name != checkpoint.name:
                path.unlink()
        place = package_data()
        result = dict(
            name=run.name,
            config=config_file(run.config),
            options=run.options,
            seed=run.seed,
            epochs=self.epochs.get(run),
            config_hash=config_hash,
            metrics=metrics,
            right=right,
            command=as_typed([*train[:3], *learned], place),
            test_command=as_typed([*test[:3], f'work_dirs/{run.config}/{checkpoint.name}', *options], place),
            commit=', '.join(state['commits']),
            seconds=round(state['seconds'], 1),
            memory=state['memory'],
            threads=self.threads,
            jobs=self.jobs,
            cpu=cpu_name(),
            device=device_name(),
            versions=versions(),
        )
        write_json(result_path(self.root, run), result)
        return result

    def _test(self, command: list, run: Run, folder: Path, state: dict) -> tuple[dict, str | None]:
        """Test a trained run; its metrics, and of a classifier which samples it has right."""
        file, rows = folder / 'metrics.json', folder / 'predictions.jsonl'
        for path in (file, rows):
            path.unlink(missing_ok=True)
        outs = [file] if read_config(run).default_scope in ('mmdet', 'mmseg') else [file, rows]
        self._step([*command, *(word for out in outs for word in ('--out', out))], folder, 'test', state)
        metrics = read_json(file)
        if not metrics:
            raise RuntimeError(f'the test left no metrics, see {folder / "test.txt"}')
        return metrics, pack_right(rows) if rows in outs else None

    def _step(self, command: Sequence[str | Path], folder: Path, name: str, state: dict) -> None:
        """One command of a run; its time counts whether it ends well or not."""
        log, start = folder / f'{name}.txt', time.monotonic()
        code, memory = self._call(command, log)
        state['seconds'] += time.monotonic() - start
        state['memory'] = max(state['memory'], memory if name == 'train' else 0)
        write_json(folder / 'evidence.json', state)
        if self.stopping:
            raise Stopped
        if code:
            raise RuntimeError(f'{name}.py ended with {code}: {last_line(log)} (see {log})')

    def _call(self, command: Sequence[str | Path], log: Path) -> tuple[int, int]:
        """Run a command with its output added to ``log``; its exit code and its peak memory in bytes."""
        log.parent.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, **self.environment, 'OMP_NUM_THREADS': str(self.threads), 'OMP_WAIT_POLICY': 'PASSIVE'}
        env['MKL_NUM_THREADS'] = env['OMP_NUM_THREADS']
        with log.open('ab') as file:
            with self.guard:
                # Asked and started under one guard, or a stop in between would miss the new process.
                if self.stopping:
                    raise Stopped
                process = subprocess.Popen(
                    [str(word) for word in command],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env=env,
                    pass_fds=[] if self.lock is None else [self.lock],
                )
                self.processes.add(process)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            finally:
                with self.guard:
                    self.processes.discard(process)
            process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def last_line(log: Path) -> str:
    """The last line of a log, which is the error of a command that failed."""
    lines = log.read_text(errors='replace').strip().splitlines()
    return lines[-1][:300] if lines else 'no output'


def duration(seconds: float) -> str:
    """A time for reading."""
    minutes = round(seconds / 60)
    return f'{minutes // 60} h {minutes % 60:02} min' if minutes >= 60 else f'{minutes} min'


def _metrics_line(result: dict) -> str:
    numbers = [f'{key} {value:.4g}' for key, value in result['metrics'].items() if isinstance(value, (int, float))]
    shown = [n for n in numbers if n.split()[0].endswith(('top1', 'bbox_mAP', 'segm_mAP', 'mIoU'))] or numbers[:3]
    return f'{", ".join(shown)}, {duration(result["seconds"])}'
