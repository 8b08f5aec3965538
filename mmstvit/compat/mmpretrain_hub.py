"""List the models of mmstvit among mmpretrain's own, once both are imported.

mmpretrain offers ``ModelHub.register_model_index`` but no way to be told of other packages, and importing mmpretrain
from here would make ``import mmstvit`` slow and mmpretrain obligatory. So registration waits for its import. T2T-ViT's
models have the names that they have in mmpretrain, which refuses a name twice: there, such a name stays mmpretrain's.
"""

import wrapt

from ..paths import package_data


def install() -> None:
    """Register the model index when ``mmpretrain.apis.model`` is imported, at once where it has been."""
    wrapt.register_post_import_hook(_register, 'mmpretrain.apis.model')


def _register(module) -> None:
    root, hub = package_data(), module.ModelHub
    others = dict(hub._models_dict)
    hub._models_dict.clear()
    hub.register_model_index(root / 'model-index.yml', config_prefix=root)
    ours = dict(hub._models_dict)
    hub._models_dict.update(others)

    def give_way(wrapped, instance, args, kwargs):
        for name, entry in ours.items():
            if hub._models_dict.get(name) is entry:
                del hub._models_dict[name]
        wrapped(*args, **kwargs)
        for name, entry in ours.items():
            hub._models_dict.setdefault(name, entry)

    wrapt.wrap_function_wrapper(hub, 'register_model_index', give_way)
