"""Checkpoints that survive what ends a training, and from which it goes on as if nothing had happened."""

import contextlib
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size, is_distributed, is_main_process
from mmengine.fileio import register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner, find_latest_checkpoint
from torch import Tensor
from torch.utils.data import DataLoader

from ..compat.toolbox_pickles import NamedFiles
from ..converters.published import unwrap
from ..io.files import remove_unfinished, write_whole
from ..registry import HOOKS
from .random_state import end_workers, random_state, seed_dataloader, set_random_state, shield_workers
from .stopping import StopSignals, TrainingInterrupted, TrainingStopped, what_is_left


class WholeFileBackend(NamedFiles):
    """mmengine's local files, each there as a whole or not at all, and on the disk before it has its name."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj``, making the folder where it is missing."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(filepath), obj, sync=True)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's checkpoints, with its arguments, made safe.

    - A file is there as a whole or not at all, and what is outdated is removed after the new one is there.
    - A checkpoint has all that the rest of training depends on: the place in the epoch, the seed of the data's order
      and the random numbers of every process. Validation leaves the random numbers as it found them.
    - SIGTERM and Ctrl-C end training after the iteration, in an ``interrupted_*.pth``. A training that goes on from it
      removes it when it has written a newer checkpoint; those of other trainings stay.
    - Weights that are not finite are not written.

    Raises:
        TrainingInterrupted: a signal came, and the state is saved.
        TrainingStopped: a checkpoint could not be written, or its weights are not finite.
    """

    _batches = 0  # of the running epoch that are done
    _position: dict | None = None
    _meta: dict = {}
    _resumed: dict | None = None
    _saved: tuple | None = None  # epochs and iterations done, of the last checkpoint
    _training = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.signals = StopSignals()
        self._interrupted: list[str] = []  # the file that is resumed, in this folder

    def before_train(self, runner: Runner) -> None:
        """Make files safe, clear away what a killed process left half-written, and begin to listen for signals."""
        register_backend('local', WholeFileBackend, force=True, prefixes='')
        super().before_train(runner)
        if is_main_process():
            for folder in {Path(runner.work_dir), Path(self.out_dir)}:
                for path in remove_unfinished(folder):
                    runner.logger.info(f'Removed {path}, which a process that has ended did not finish.')
        self._training = True
        self.signals.start()
        if self._resumed is not None:
            self._take_up(runner, self._resumed)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember where the training that is resumed was."""
        if runner._resume:
            self._resumed = checkpoint.get('position')

    def before_train_epoch(self, runner: Runner) -> None:
        """Note the random numbers, and seed those of the dataloader's workers."""
        self._epoch_random = random_state()
        seed_dataloader(runner.train_loop.dataloader, runner.seed, runner.epoch if has_epochs(runner) else runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save where mmengine does, and leave if a signal has come."""
        self._batches = batch_idx + 1 if has_epochs(runner) else 0
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        # Gradients that are still being accumulated are in no checkpoint.
        should_update = getattr(runner.optim_wrapper, 'should_update', None)
        if (should_update is None or should_update()) and self._is_to_stop():
            self._leave(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Save where mmengine does: the whole epoch is done."""
        self._batches = 0
        super().after_train_epoch(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Note the random numbers, and shield the dataloader's workers from signals."""
        self._val_random = random_state()
        if self._training:
            shield_workers(runner.val_loop.dataloader)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Leave if a signal has come. Several processes, whose batches may differ in number, finish validation."""
        if self._training and not is_distributed() and self.signals.received:
            set_random_state(self._val_random)
            self._leave(runner, runner.iter, validate=True)

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Put the random numbers back, and save the best weights."""
        if not self._training:
            return
        set_random_state(self._val_random)
        with self._removing_afterwards(), _explained(runner):
            super().after_val_epoch(runner, metrics)

    def after_train(self, runner: Runner) -> None:
        """Listen no more."""
        self._training = False
        self.signals.end()
        end_workers(runner.train_loop.dataloader)
        super().after_train(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the place of training, unless only the best weights are saved."""
        _refuse_nonfinite(runner, checkpoint)
        if self._position is not None:
            checkpoint['position'] = self._position
            checkpoint['meta'].update(self._meta)  # the FlexibleRunner has another opinion after an epoch

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = []
        if self.max_keep_ckpts > 0:
            # A run of the same name in this process has left its steps in mmengine's message hub, perhaps this one.
            kept = [*(other for other in self.keep_ckpt_ids if other != step), step]  # type: ignore[has-type]
            outdated = [self.filename_tmpl.format(other) for other in kept[: -self.max_keep_ckpts]]
            self.keep_ckpt_ids = deque(kept[-self.max_keep_ckpts :])
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._write(runner, self.filename_tmpl.format(step), meta, outdated)

    def _remove(self, names: list[str]) -> None:
        for path in (self.file_backend.join_path(self.out_dir, name) for name in names):
            if is_main_process() and self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _take_up(self, runner: Runner, position: dict) -> None:
        """Do what the process that wrote the checkpoint was about to do next, and go to its place."""
        path = Path(runner._load_from or find_latest_checkpoint(runner.work_dir) or '')
        if path.parent.resolve() == Path(self.out_dir).resolve():
            if fnmatch(path.name, 'interrupted_*.pth'):
                self._interrupted = [path.name]
            if is_main_process():
                write_last_checkpoint(runner.work_dir, self.file_backend.join_path(self.out_dir, path.name))
            self._remove(position['outdated'])
        _go_to(runner, position)
        if position['validate'] and runner.val_loop is not None:
            runner.val_loop.run()

    def _write(
        self, runner: Runner, name: str, meta: dict, outdated: Sequence[str] = (), validate: bool = False
    ) -> None:
        """Write a checkpoint, then its name into ``last_checkpoint``, and remove what is outdated by it."""
        outdated = [other for other in (*outdated, *self._interrupted) if other != name]
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._meta = dict(meta)
        self._position = dict(self._place(runner), outdated=outdated, validate=validate)
        with _explained(runner):
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                write_last_checkpoint(runner.work_dir, self.last_ckpt)
        self._position = None
        self._saved = meta['epoch'], meta['iter']
        self._remove(outdated)
        self._interrupted = []

    def _place(self, runner: Runner) -> dict:
        """What the rest of training depends on, beside weights and the optimizer."""
        loader = runner.train_loop.dataloader
        return dict(
            batches=self._batches,
            epoch_length=len(loader) if has_epochs(runner) else 0,
            sampler_seed=getattr(_sampler(loader), 'seed', None),
            random=all_gather_object(random_state()),
            # With these the batches that are done come again, to be passed over.
            epoch_random=all_gather_object(self._epoch_random) if self._batches else None,
        )

    def _is_to_stop(self) -> bool:
        """Whether a signal has come, to any of the processes: all must leave after the same iteration."""
        come = torch.tensor(float(self.signals.received is not None))
        all_reduce(come, op='max')
        return bool(come)

    def _leave(self, runner: Runner, done: int, validate: bool = False) -> None:
        if validate or self._saved != (runner.epoch, done):
            place = f'epoch_{runner.epoch}_iter_{done}' if self.by_epoch else f'iter_{done}'
            self._write(runner, f'interrupted_{place}.pth', dict(epoch=runner.epoch, iter=done), validate=validate)
        raise TrainingInterrupted(self.signals.received or signal.SIGTERM, self.last_ckpt)

    @contextlib.contextmanager
    def _removing_afterwards(self) -> Iterator[None]:
        """mmengine removes the best weights before it writes better ones."""
        outdated: list[str] = []
        remove = self.file_backend.remove
        self.file_backend.remove = outdated.append
        try:
            yield
        finally:
            self.file_backend.remove = remove
        for path in outdated:
            remove(path)


def write_last_checkpoint(work_dir: str | Path, path: str) -> None:
    """Name a checkpoint as the last one, in the file that mmengine reads it from."""
    write_whole(Path(work_dir) / 'last_checkpoint', path.encode(), sync=True)


def has_epochs(runner: Runner) -> bool:
    """Whether a training counts epochs, and not iterations alone."""
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def _sampler(dataloader: DataLoader) -> Any:
    """The sampler that has the seed of the order: as in mmengine, that of the batch sampler where there is one."""
    outer = dataloader.sampler
    return outer if hasattr(outer, 'seed') else getattr(dataloader.batch_sampler, 'sampler', outer)


def _go_to(runner: Runner, position: dict) -> None:
    """Restore the order of the data and the random numbers; in an epoch, pass over the batches that are done."""
    loop, batches = runner.train_loop, position['batches']
    if position['sampler_seed'] is not None:
        _sampler(loop.dataloader).seed = position['sampler_seed']
    if batches and position['epoch_length'] != len(loop.dataloader):
        runner.logger.info(
            f'Resumed in an epoch of {position["epoch_length"]} batches, which has {len(loop.dataloader)} now: it '
            'begins anew.'
        )
        loop._iter = loop._epoch * len(loop.dataloader)
        return
    state = epoch_state = None
    if len(position['random']) == get_world_size():
        state = position['random'][get_rank()]
        epoch_state = position['epoch_random'][get_rank()] if batches else state
        set_random_state(epoch_state)
    else:
        runner.logger.info('Resumed with another number of processes: random numbers differ from here on.')
    if batches:
        runner.logger.info(f'{batches} batches of the epoch are done: they are loaded and passed over.')
        _pass_over(loop, batches, state)


def _pass_over(loop: EpochBasedTrainLoop, batches: int, state: dict | None) -> None:
    """Let a loop do nothing with its first batches, and restore the random numbers after the last of them."""

    def run_iter(idx: int, data_batch: Any) -> None:
        if idx + 1 == batches:
            del loop.run_iter
            if state is not None:
                set_random_state(state)

    loop.run_iter = run_iter


def _refuse_nonfinite(runner: Runner, checkpoint: dict) -> None:
    """Weights are spoilt where a gradient was not finite; the loss tells it one iteration later only."""
    buffers = {name for name, _ in unwrap(runner.model).named_buffers()}  # some have infinities on purpose
    for name, value in checkpoint['state_dict'].items():
        if name not in buffers and isinstance(value, Tensor) and not value.isfinite().all():
            raise TrainingStopped(
                f'{name} and perhaps other weights are not finite after iteration {runner.iter}: they are not saved; '
                f'{what_is_left(runner.work_dir)}'
            )


@contextlib.contextmanager
def _explained(runner: Runner) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingStopped(
            f'a checkpoint cannot be written: {error.strerror or error}; {what_is_left(runner.work_dir)}; make room '
            'and go on with the same command and --resume'
        ) from error
