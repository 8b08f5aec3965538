"""Broken clips of a training in mmaction2: count those that are skipped, and name those at which a worker crashes."""

import contextlib
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from ..datasets.checked_videos import CheckedVideos
from ..errors import UsageError
from ..registry import HOOKS, resolve_type
from .datasets import configured, is_video_dataset, with_inner
from .running import add_hook


def skip_broken_clips(cfg: Config) -> None:
    """Write into a config that its training goes on without clips that cannot be read, and counts them.

    Raises:
        UsageError: it trains on no ``VideoDataset``.
    """
    sets = configured(cfg, 'train_dataloader')
    kinds = [resolve_type(dataset.get('type'), DATASETS, cfg.get('default_scope')) for _, dataset in sets]
    if not any(is_video_dataset(kind) for kind in kinds):
        raise UsageError('--skip-broken is for data sets of the type VideoDataset, and the config trains on none')
    cfg.setdefault('data_checks', ConfigDict()).skip_broken = True
    add_hook(cfg, 'mmstvit.SkippedClipsHook')


def _checked_sets(dataset: Any) -> Iterator[CheckedVideos]:
    return (part for part in with_inner(dataset) if isinstance(part, CheckedVideos))


@HOOKS.register_module()
class SkippedClipsHook(Hook):
    """Report at the end of training how many broken clips were skipped, and which."""

    def after_train(self, runner: Runner) -> None:
        """Count over all processes and log."""
        for videos in _checked_sets(runner.train_dataloader.dataset):
            if videos.skip_broken:
                names = videos.broken()
                lines = ''.join(f'\n  {name}' for name in names)
                what = f'{len(names)} of the {len(videos)} clips of {videos.dataset.ann_file} were skipped'
                runner.logger.info(f'{what}, which cannot be read:{lines}' if names else what)


@contextlib.contextmanager
def clear_crashes(runner: Runner) -> Iterator[None]:
    """While it is open, a worker that crashes at a clip raises :class:`UsageError` with the names of those it read."""
    try:
        yield
    except RuntimeError as error:
        clips = [part for loop in runner.loops for part in _checked_sets(loop.dataloader.dataset)]
        names = [name for part in clips for name in part.being_read()]
        if 'DataLoader worker' not in str(error) or not names:
            raise
        raise UsageError(
            f'a worker crashed while it read one of these files, which must be broken: {", ".join(names)}'
        ) from error
