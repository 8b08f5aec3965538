"""How a training is stopped: by a signal that is obeyed between two iterations, or because it must not go on."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

from mmengine.dist import is_distributed

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def what_is_left(work_dir: str) -> str:
    """The last checkpoint of a run, in words."""
    last = Path(work_dir) / 'last_checkpoint'
    return f'the last good checkpoint is {last.read_text().strip()}' if last.is_file() else 'there is no checkpoint yet'


class TrainingStopped(Exception):
    """Training cannot go on; the text is one line that says why, and what is left."""


class TrainingInterrupted(TrainingStopped):
    """A signal ended the training, and its state is saved.

    Args:
        number: the signal.
        checkpoint: path of the file to go on from.
    """

    def __init__(self, number: int, checkpoint: str) -> None:
        self.number, self.checkpoint = number, checkpoint
        super().__init__(
            f'interrupted by {signal.Signals(number).name}; the state of training is in {checkpoint}: go on with the '
            'same command and --resume'
        )


class StopSignals:
    """SIGTERM and Ctrl-C are noted and not obeyed between :meth:`start` and :meth:`end`.

    A second one ends the process at once. Among several processes it is ignored: torchrun hands on the Ctrl-C that the
    terminal has given to all of them already, and kills what does not end within 30 seconds.

    Attributes:
        received: the number of the signal that has come, or ``None``.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def start(self) -> None:
        """Begin to listen. Signals can be listened to in the main thread alone: elsewhere they are left as they are."""
        self.received = None
        try:
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        except ValueError:
            self._before = {}

    def end(self) -> None:
        """Leave the signals as they were before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        distributed = is_distributed()
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN if distributed else signal.SIG_DFL)
        if not distributed:
            # Printing from a handler could meet a print that it has interrupted.
            os.write(2, b'stopping: this iteration is finished and the state saved; a second signal ends it at once\n')


def obey_parent_alone() -> None:
    """In a dataloader's worker: leave it to the process that trains when to end.

    Ctrl-C goes to all processes of a terminal, SIGTERM from a scheduler to all processes of a job; a worker that obeyed
    would take the data away from the iteration that is to be finished.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, 'sigwaitinfo'):  # macOS: who has sent a signal cannot be known
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
