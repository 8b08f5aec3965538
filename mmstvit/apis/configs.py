"""Find configs by name or path."""

from pathlib import Path

from ..errors import UsageError, nearest
from ..model_index import model_index
from ..paths import package_data


def find_config(path: str) -> Path:
    """Find a config file by its path, its path below the ``configs`` of the installed package, or a model's name.

    Raises:
        UsageError: there is none.
    """
    root = package_data()
    for candidate in (Path(path), root / path, root / 'configs' / path):
        if candidate.is_file():
            return candidate
    if entry := model_index().get(path):
        return Path(entry['Config'])
    known = {p.stem: p.relative_to(root) for p in (root / 'configs').rglob('*.py')}
    near = nearest(Path(path).stem, known)
    hint = f'did you mean {known[near]}?' if near else f'those of mmstvit are in {root / "configs"}'
    raise UsageError(f'there is no config {path}; {hint}')


def find_run(folder: Path) -> tuple[Path, Path]:
    """Return the config and the checkpoint that a training has left in its work dir: the best one, or else the last.

    Raises:
        UsageError: there are none, or more than one.
    """
    configs, best = sorted(folder.glob('*.py')), sorted(folder.glob('best_*.pth'))
    if len(configs) != 1:
        names = ', '.join(path.name for path in configs) or 'none'
        raise UsageError(f'{folder} must have the config of one training, it has {names}: give the path of a config')
    last = folder / 'last_checkpoint'
    named = Path(last.read_text().strip()) if last.is_file() else last
    candidates = [*(best if len(best) == 1 else ()), folder / named.name, named]  # the folder may have been moved
    checkpoint = next((path for path in candidates if path.is_file() and path.suffix == '.pth'), None)
    if checkpoint is None:
        raise UsageError(f'{folder} has no checkpoint that a training has finished: give --checkpoint')
    return configs[0], checkpoint
