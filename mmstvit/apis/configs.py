"""Find configs by name or path."""

from pathlib import Path

from ..engine.whole_checkpoints import newest_whole_checkpoint
from ..errors import UsageError, nearest
from ..model_index import model_index
from ..paths import package_data


def find_config(path: str) -> Path:
    """Find a config file by its path, its path below the ``configs`` of the installed package, or a model's name.

    The path of a work dir stands for the config that a training has left in it.

    Raises:
        UsageError: there is none.
    """
    if Path(path).is_dir():
        return _config_of_run(Path(path))
    root = package_data()
    for candidate in (Path(path), root / path, root / 'configs' / path):
        if candidate.is_file():
            return candidate
    if entry := model_index().get(path):
        return Path(entry['Config'])
    # Those of the model index first, published networks before small ones.
    paths = [*(Path(entry['Config']) for entry in model_index().values()), *sorted((root / 'configs').rglob('*.py'))]
    known = {path.stem: path.relative_to(root) for path in paths}
    near = nearest(Path(path).stem, known)
    hint = f'did you mean {known[near]}?' if near else f'those of mmstvit are in {root / "configs"}'
    raise UsageError(f'there is no config {path}; {hint}')


def _config_of_run(folder: Path) -> Path:
    configs = sorted(folder.glob('*.py'))
    if len(configs) != 1:
        names = ', '.join(path.name for path in configs) or 'none'
        raise UsageError(f'{folder} must have the config of one training, it has {names}: give the path of a config')
    return configs[0]


def find_run(model: str, checkpoint: str | None) -> tuple[str, str | None]:
    """Return a config and a checkpoint, where a work dir may stand in the place of both.

    Args:
        model: a config as of :func:`find_config`, or the work dir of a training.
        checkpoint: by default, of a work dir, the best one, or else the last.

    Returns:
        The config as it was given, a work dir too: what is written goes there; and the checkpoint.

    Raises:
        UsageError: the work dir has no config or more than one, or no checkpoint.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model, checkpoint
    _config_of_run(folder)
    return model, checkpoint or str(_checkpoint_of_run(folder))


def _checkpoint_of_run(folder: Path) -> Path:
    best = sorted(folder.glob('best_*.pth'))
    checkpoint = best[0] if len(best) == 1 else newest_whole_checkpoint(folder)[0]
    if checkpoint is None:
        raise UsageError(f'{folder} has no checkpoint that a training has finished: give a checkpoint')
    return checkpoint
