"""Find configs by name or path."""

import difflib
from pathlib import Path

from ..errors import UsageError
from ..paths import package_data
from .models import model_index


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
    near = difflib.get_close_matches(Path(path).stem, list(known), n=1)
    hint = f'did you mean {known[near[0]]}?' if near else f'those of mmstvit are in {root / "configs"}'
    raise UsageError(f'there is no config {path}; {hint}')
