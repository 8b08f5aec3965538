"""List the models of mmstvit among mmpretrain's own, once both are imported.

mmpretrain offers ``ModelHub.register_model_index`` but no way to be told of other packages, and importing mmpretrain
from here would make ``import mmstvit`` slow and mmpretrain obligatory. So registration waits for its import.
"""

import wrapt

from ..paths import package_data


def install() -> None:
    """Register the model index when ``mmpretrain.apis.model`` is imported, at once where it has been."""
    wrapt.register_post_import_hook(_register, 'mmpretrain.apis.model')


def _register(module) -> None:
    root = package_data()
    module.ModelHub.register_model_index(root / 'model-index.yml', config_prefix=root)
