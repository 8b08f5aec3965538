"""How many epochs fit into a limited time, from the pace of a short trial on the same machine."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.config import Config

from mmstvit.errors import UsageError

from .plan import Run

# Of the time; the rest is for what the trial does not show.
SHARE = 0.9
# Overrides of a training of one epoch that leaves nothing behind.
TRIAL = {
    'train_cfg.max_epochs': 1,
    'param_scheduler': None,
    'default_hooks.checkpoint.interval': -1,
    'default_hooks.checkpoint.save_last': False,
}


@dataclass(frozen=True)
class Pace:
    """What a config takes beside as many others as run at a time.

    Attributes:
        epoch: seconds an epoch.
        start: seconds of everything else in a training, most of them before its first step.
    """

    epoch: float
    start: float


def pace_of(folder: Path, seconds: float) -> Pace:
    """Read the pace of a finished trial from the last lines of its log, where it is warm.

    Args:
        folder: its work dir.
        seconds: that it took.

    Raises:
        UsageError: the log has no times.
    """
    lines = [json.loads(line) for path in folder.glob('*/vis_data/scalars.json') for line in path.open()]
    timed = [line for line in lines if 'time' in line and 'loss' in line]
    if not timed:
        raise UsageError(f'{folder} has no log of a training')
    epoch = timed[-1]['time'] * timed[-1]['step']
    return Pace(round(epoch, 2), round(max(seconds - epoch, 0.0), 2))


def mean_paces(trials: Sequence[tuple[Run, Pace]]) -> dict[str, Pace]:
    """Average the trials of each config."""
    by_config: dict[str, list[Pace]] = {}
    for run, pace in trials:
        by_config.setdefault(run.config, []).append(pace)
    return {
        config: Pace(sum(p.epoch for p in paces) / len(paces), sum(p.start for p in paces) / len(paces))
        for config, paces in by_config.items()
    }


def epochs_within(
    seconds: float, runs: Sequence[Run], cfgs: Mapping[str, Config], paces: Mapping[str, Pace], jobs: int
) -> dict[str, int]:
    """Shorten all trainings by one factor, so that they and their tests end in time.

    Args:
        seconds: for all of them.
        runs: that are to be done.
        cfgs: the config of each name, with the epochs that it has where time is no limit.
        paces: of each config, with ``jobs`` at a time.
        jobs: runs side by side.

    Returns:
        Epochs of each config.

    Raises:
        UsageError: a training would end in its warm-up.
    """
    epochs = {config: cfgs[config].train_cfg.max_epochs for config in paces}
    # A test begins as a training does.
    starts = sum(2 * paces[run.config].start for run in runs) / jobs
    work = sum(epochs[run.config] * paces[run.config].epoch for run in runs) / jobs
    factor = min(1.0, max(0.0, (SHARE * seconds - starts) / work))
    least = {config: 1 + max(s.get('begin', 0) for s in cfgs[config].param_scheduler) for config in paces}
    needed = max(least[config] / epochs[config] for config in paces)
    if factor < needed:
        raise UsageError(
            f'{seconds / 60:.1f} minutes are too few for {len(runs)} trainings, some would end in their warm-up: give '
            f'{(starts + work * needed) / SHARE / 60:.1f} minutes or more, or choose fewer runs with --only'
        )
    return {config: int(number * factor + 1e-6) for config, number in epochs.items()}


def as_json(paces: Mapping[str, Pace], jobs: int, device: str) -> dict:
    """What is kept of a trial."""
    return dict(jobs=jobs, device=device, paces={config: asdict(pace) for config, pace in paces.items()})


def from_json(kept: dict | None, jobs: int, device: str) -> dict[str, Pace]:
    """The paces of a trial that was made in the same way, none of another."""
    if not kept or (kept['jobs'], kept['device']) != (jobs, device):
        return {}
    return {config: Pace(**pace) for config, pace in kept['paces'].items()}
