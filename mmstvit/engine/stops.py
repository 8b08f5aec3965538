"""What ends a training before its time, in the commands: it is prepared for, told in one line, and taken up again."""

import contextlib
import errno
import sys
from collections.abc import Iterator
from contextvars import Context
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..errors import UsageError, one_line
from ..io.checkpoints import CheckpointError, load
from ..io.files import remove_unfinished
from ..registry import resolve_type
from .checkpoints import SafeCheckpointHook, write_last_checkpoint
from .running import add_hook
from .stopping import TrainingInterrupted, TrainingStopped, what_is_left
from .whole_checkpoints import newest_whole_checkpoint

_SAFE = 'mmstvit.SafeCheckpointHook'
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def newest_checkpoint(cfg: Config) -> str | None:
    """The newest whole checkpoint in the work dir; those that are passed over are told."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    path, passed_over = newest_whole_checkpoint(Path(cfg.work_dir), hook.get('filename_tmpl'))
    for broken, fault in passed_over:
        print(f'Passed over {broken}: {fault}.')
    if path is not None:
        return str(path)
    if any(broken.exists() for broken, _ in passed_over):
        raise UsageError(
            f'none of the checkpoints in {cfg.work_dir} is whole: leave --resume out to start from the beginning, '
            'which writes over them'
        )
    return None


def finished_training(cfg: Config) -> str | None:
    """Return the line for a training that is resumed and has run to its end, ``None`` where there is more to do.

    The name of its last checkpoint is written where that is missing; what is wrong with it is left to the runner.
    """
    path, loop = cfg.get('load_from'), cfg.get('train_cfg') or {}
    if not cfg.get('resume') or not path or not Path(path).is_file():
        return None
    try:
        checkpoint = Context().run(load, path, map_location='meta')  # code in a trusted file must not run twice
    except (CheckpointError, OSError):
        return None
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    for unit, name in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
        last, done = loop.get(name), (meta or {}).get(unit)
        if isinstance(last, int) and isinstance(done, int) and done >= last:
            if (checkpoint.get('position') or {}).get('validate'):
                return None
            if Path(path).parent.resolve() == Path(cfg.work_dir).resolve():
                _name_as_last(Path(path))
            return (
                f'The training is finished: {path} is of {unit} {done} of {last}. To train on, raise '
                f'train_cfg.{name} with --cfg-options.'
            )
    return None


def _name_as_last(path: Path) -> None:
    """Write a checkpoint's name beside it, which a process that was killed after it may not have done."""
    remove_unfinished(path.parent)
    pointer = path.parent / 'last_checkpoint'
    if not pointer.is_file() or Path(pointer.read_text()).name != path.name:
        write_last_checkpoint(path.parent, str(path))


def guard_training(cfg: Config) -> None:
    """Put safe checkpoints in the place of mmengine's, and watch the loss.

    A config without checkpoints, or with a hook of its own for them, is left as it is: its training cannot be
    interrupted and resumed as it was.
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    kind = hook and resolve_type(hook.get('type'), HOOKS, cfg.get('default_scope'))
    if kind not in (CheckpointHook, SafeCheckpointHook):
        print('The config has no CheckpointHook of mmengine: a signal ends the training without saving its state.')
    else:
        hook.type = _SAFE
    add_hook(cfg, 'mmstvit.NonFiniteGuardHook')


@contextlib.contextmanager
def clear_stops(runner: Runner) -> Iterator[None]:
    """While it is open, what stops a training ends the process with one line: 128 and the signal's number, or 2."""
    try:
        yield
    except TrainingInterrupted as error:
        if is_main_process():
            print(error, file=sys.stderr)
        sys.exit(128 + error.number)
    except TrainingStopped as error:
        raise UsageError(one_line(error)) from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        left = what_is_left(runner.work_dir)
        raise UsageError(
            f'{one_line(error)}; {left}: make room and go on with the same command and --resume'
        ) from error
    finally:
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook):
                hook.signals.end()
