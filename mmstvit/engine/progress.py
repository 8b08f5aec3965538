"""The course of a training in one line an epoch, in the place of the log: ``mmstvit train --quiet``."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from .checkpoints import has_epochs
from .terminal import warnings_alone

_BAR = 20  # characters
_REDRAW = 0.2  # seconds between two drawings in a terminal
_METRICS = 3  # of a validation, at most
_LINES = 20  # of a training that counts iterations and is not validated


@contextlib.contextmanager
def one_line_an_epoch(runner: Runner) -> Iterator[None]:
    """While it is open, a training prints one line an epoch; its log file has everything."""
    hook = EpochLines(sys.stdout)
    runner.register_hook(hook, priority='LOWEST')
    with warnings_alone(runner.logger):
        try:
            yield
        finally:
            hook.end()


class EpochLines(Hook):
    """Print a line an epoch: a bar over the whole training, the loss, the metrics of a validation, the time left.

    A training that counts iterations gets a line a validation. In a terminal the line of the epoch that runs is drawn
    anew in its place. The first process alone prints.

    Args:
        stream: where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._moves = stream.isatty()
        self._line, self._drawn = '', 0.0
        self._start, self._first, self._since = 0.0, 0, 0

    def before_train(self, runner: Runner) -> None:
        """Tell how long the training is, and start the clock."""
        self._start, self._first, self._since = time.monotonic(), runner.iter, runner.iter
        length = f'{runner.max_iters:,} iterations'
        if has_epochs(runner):
            length = f'{runner.max_epochs} epochs of {len(runner.train_dataloader):,} iterations'
        begun = f', {runner.iter:,} of them done' if runner.iter else ''
        self._write(f'{runner.experiment_name}: {length}{begun}; log: {os.path.relpath(runner.logger.log_file)}\n')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Finish the line of the epoch that is over, with what its validation has found."""
        if self._line:
            self.end()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Draw the line of the epoch that runs."""
        done = runner.iter + 1
        if not (has_epochs(runner) or runner.val_loop or done % max(runner.max_iters // _LINES, 1)):
            self._make(runner, done)
        elif self._moves and time.monotonic() - self._drawn > _REDRAW:
            self._drawn = time.monotonic()
            text = self._text(runner, done)
            self._write(f'\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K')

    def after_train_epoch(self, runner: Runner) -> None:
        """Make the line of an epoch."""
        self._make(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Add what the validation has found."""
        self._make(runner, runner.iter)
        names: list[str] = []
        metrics = metrics or {}
        for name, value in metrics.items():
            # Of bbox_mAP and bbox_mAP_50 the first is told.
            if isinstance(value, (int, float)) and not any(name.startswith(f'{known}_') for known in names):
                names.append(name)
        self._line += ''.join(f'  {name} {metrics[name]:.4g}' for name in names[:_METRICS])

    def _make(self, runner: Runner, done: int) -> None:
        """Make the line that ends where ``done`` iterations are, unless there is one."""
        if not self._line:
            self._line, self._since = self._text(runner, done), done

    def end(self) -> None:
        """Finish the line, where one is begun."""
        if self._line:
            self._write(f'\r{self._line}\x1b[K\n' if self._moves else f'{self._line}\n')
        elif self._drawn:
            self._write('\n')
        self._line, self._drawn = '', 0.0

    def _text(self, runner: Runner, done: int) -> str:
        total = max(runner.max_iters, 1)
        share = min(done / total, 1)
        bar = '#' * int(share * _BAR)
        passed = time.monotonic() - self._start
        left = passed / max(done - self._first, 1) * (total - done)
        if has_epochs(runner):
            epoch = min(-(-done // len(runner.train_dataloader)), runner.max_epochs)
            where = f'epoch {epoch:>{len(str(runner.max_epochs))}}/{runner.max_epochs}'
        else:
            where = f'iteration {done:>{len(str(total))}}/{total}'
        times = f'{_clock(passed)}, {_clock(left)} left' if done < total else _clock(passed)
        return f'{where} [{bar:-<{_BAR}}] {times}{_loss(runner, done - self._since)}'

    def _write(self, text: str) -> None:
        if is_main_process():
            self._stream.write(text)
            self._stream.flush()


def _loss(runner: Runner, window: int) -> str:
    """The mean loss of the last iterations."""
    history = runner.message_hub.log_scalars.get('train/loss')
    return f'  loss {history.mean(max(window, 1)):.4g}' if history is not None else ''


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else f'{minutes}:{seconds:02d}'
