"""Put checks around the lists of videos of a config, and report clips that are broken."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..datasets.checked_videos import CheckedVideos
from ..errors import UsageError
from ..registry import HOOKS
from .running import add_hook

_VIDEOS = ('VideoDataset', 'mmaction.VideoDataset')


def check_videos(cfg: Config, names: Sequence[str], skip_broken: bool = False, trust_data: bool = False) -> None:
    """Put :class:`CheckedVideos` around each ``VideoDataset`` of the config's dataloaders ``names``.

    Args:
        cfg: nothing is done where it is not of mmaction2.
        names: of the dataloaders.
        skip_broken: of the data sets of ``train_dataloader``; a hook counts what was skipped.
        trust_data: whether names and links may lead out of a data set's folder.

    Raises:
        UsageError: there is nothing that ``skip_broken`` could mean.
    """
    if cfg.get('default_scope') == 'mmaction':
        classes = (cfg.model.get('cls_head') or {}).get('num_classes')
        for name in names:
            if (cfg.get(name) or {}).get('dataset'):
                skip = skip_broken and name == 'train_dataloader'
                settings = dict(skip_broken=skip, num_classes=classes, trust_data=trust_data)
                cfg[name].dataset = _wrapped(cfg[name].dataset, settings)
    if skip_broken:
        if not _contains(cfg.train_dataloader.dataset):
            raise UsageError('--skip-broken is for data sets of the type VideoDataset, and the config trains on none')
        add_hook(cfg, 'mmstvit.SkippedClipsHook')


def _wrapped(dataset: Any, settings: dict) -> Any:
    """The config of a data set with the checks around each of videos in it."""
    if not isinstance(dataset, dict) or dataset.get('type') == 'mmstvit.CheckedVideos':
        return dataset
    if dataset.get('type') in _VIDEOS:
        return ConfigDict(type='mmstvit.CheckedVideos', dataset=dataset, **settings)
    if 'dataset' in dataset:
        dataset.dataset = _wrapped(dataset.dataset, settings)
    if 'datasets' in dataset:
        dataset.datasets = [_wrapped(part, settings) for part in dataset.datasets]
    return dataset


def _contains(dataset: Any) -> bool:
    if not isinstance(dataset, dict):
        return False
    inside = [dataset.get('dataset'), *dataset.get('datasets', [])]
    return dataset.get('type') == 'mmstvit.CheckedVideos' or any(map(_contains, inside))


def _checked_sets(dataset: Any) -> Iterator[CheckedVideos]:
    if isinstance(dataset, CheckedVideos):
        yield dataset
        return
    for part in [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', [])]:
        if part is not None:
            yield from _checked_sets(part)


@HOOKS.register_module()
class SkippedClipsHook(Hook):
    """Report at the end of training how many broken clips were skipped, and which."""

    def after_train(self, runner: Runner) -> None:
        """Count over all processes and log."""
        for videos in _checked_sets(runner.train_dataloader.dataset):
            if videos.skip_broken:
                names = videos.broken()
                told = ''.join(f'\n  {name}' for name in names)
                what = f'{len(names)} of the {len(videos)} clips of {videos.dataset.ann_file} were skipped'
                runner.logger.info(f'{what}, which cannot be read:{told}' if names else what)


def _being_read(runner: Runner) -> list[str]:
    # Loops are configs until they are run.
    loops = [loop for loop in (runner._train_loop, runner._val_loop, runner._test_loop) if hasattr(loop, 'dataloader')]
    return [name for loop in loops for videos in _checked_sets(loop.dataloader.dataset) for name in videos.being_read()]


@contextlib.contextmanager
def clear_crashes(runner: Runner) -> Iterator[None]:
    """While it is open, a worker that crashes at a clip raises :class:`UsageError` with the names of those it read."""
    try:
        yield
    except RuntimeError as error:
        names = _being_read(runner) if 'DataLoader worker' in str(error) else []
        if not names:
            raise
        raise UsageError(
            f'a worker crashed while it read one of these files, which must be broken: {", ".join(names)}'
        ) from error
