"""Where the configs, tools and the model index are, in an installed package and in a checkout; and addresses."""

import re
from pathlib import Path


def package_data() -> Path:
    """The folder that holds ``configs/``, ``tools/`` and ``model-index.yml``."""
    package = Path(__file__).resolve().parent
    installed = package / '.mim'  # filled by setup.py, as in all OpenMMLab packages
    return installed if (installed / 'configs').is_dir() else package.parent


# As `https://...`, `s3://...` or, with the name of a cluster, `near:s3://...`.
_ADDRESS = re.compile(r'[A-Za-z][\w+.-]*(:[A-Za-z][\w+.-]*)?://')


def is_address(name: str) -> bool:
    """Whether it begins with a scheme, so that mmengine reads it from elsewhere, and is no file of this machine."""
    return _ADDRESS.match(name) is not None
