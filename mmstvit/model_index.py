"""The models of mmstvit by name, from the model index: without PyTorch and the toolboxes."""

import fnmatch
from pathlib import Path

import yaml

from .paths import package_data

_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)  # the former is there where PyYAML was built with libyaml


def read_yaml(path: Path) -> dict:
    """Read a YAML file, as are the model index and the metafiles."""
    return yaml.load(path.read_text(encoding='utf-8'), _LOADER)


def model_index() -> dict[str, dict]:
    """Read the model index: name -> entry, with the absolute path of its config."""
    root = package_data()
    entries = {}
    for metafile in read_yaml(root / 'model-index.yml')['Import']:
        for entry in read_yaml(root / metafile)['Models']:
            entries[entry['Name']] = {**entry, 'Config': str(root / entry['Config'])}
    return entries


def top1_of(entry: dict) -> float | None:
    """Return the first top-1 accuracy among the results of a model, in per cent."""
    metrics = (m for result in entry.get('Results') or () for m in (result.get('Metrics') or {}).items())
    return next((float(value) for key, value in metrics if key.lower() == 'top 1 accuracy'), None)


def list_models(pattern: str | None = None) -> list[str]:
    """List the names of the models of mmstvit, sorted.

    Args:
        pattern: shell wildcards, e.g. ``'*stvit-s*'``; any ending matches, as in mmpretrain.
    """
    return sorted(fnmatch.filter(model_index(), '*' if pattern is None else pattern + '*'))
