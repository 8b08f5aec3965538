"""Where the configs, tools and the model index are: in an installed package and in a checkout."""

from pathlib import Path


def package_data() -> Path:
    """The folder that holds ``configs/``, ``tools/`` and ``model-index.yml``."""
    package = Path(__file__).resolve().parent
    installed = package / '.mim'  # filled by setup.py, as in all OpenMMLab packages
    return installed if (installed / 'configs').is_dir() else package.parent
