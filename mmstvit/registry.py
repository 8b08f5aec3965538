"""The registries of mmstvit, children of mmengine's under the scope ``mmstvit``.

mmengine imports ``<scope>.registry`` by itself when it meets a scoped name, and then the ``locations`` given here, so
``type='mmstvit.STViT'`` works in a config of any OpenMMLab toolbox without ``custom_imports``.
"""

from typing import Any

import mmengine.registry as theirs
from mmengine.registry import Registry

MODELS = Registry('model', parent=theirs.MODELS, scope='mmstvit', locations=['mmstvit.models'])
DATASETS = Registry('dataset', parent=theirs.DATASETS, scope='mmstvit', locations=['mmstvit.datasets'])
FUNCTIONS = Registry('function', parent=theirs.FUNCTIONS, scope='mmstvit', locations=['mmstvit.engine.fsdp'])
RUNNERS = Registry('runner', parent=theirs.RUNNERS, scope='mmstvit', locations=['mmstvit.engine.runner'])
STRATEGIES = Registry('strategy', parent=theirs.STRATEGIES, scope='mmstvit', locations=['mmstvit.engine.fsdp'])
HOOKS = Registry(
    'hook',
    parent=theirs.HOOKS,
    scope='mmstvit',
    locations=[
        'mmstvit.engine.activation_checkpointing',
        'mmstvit.engine.checkpoints',
        'mmstvit.engine.nonfinite',
        'mmstvit.engine.token_pictures',
        'mmstvit.engine.videos',
        'mmstvit.visualization.drawing_hooks',
    ],
)


def resolve_type(kind: Any, registry: Registry, scope: str | None = None) -> Any:
    """Return the class that a config's ``type`` stands for, or ``None`` where nothing is registered under its name.

    Args:
        kind: a class, which stands for itself, or a name, perhaps with its scope.
        registry: where names are looked up.
        scope: the config's ``default_scope``; by default that of the run.
    """
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(scope) as chosen:
        try:
            return chosen.get(kind)
        except RuntimeError:  # a module of this name cannot be imported
            return None


def type_name(config: dict) -> str:
    """Return the name of a config's ``type`` without its scope; the type may be a class."""
    kind = config.get('type', '')
    return getattr(kind, '__name__', str(kind)).split('.')[-1]


def entries_of(value: Any) -> list:
    """Return the entries of a setting of a config that may be one or many; ``None`` has none."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def is_type(kind: Any, cls: type, registry: Registry, scope: str | None = None) -> bool:
    """Whether a config's ``type`` stands for a class or one derived from it."""
    kind_class = resolve_type(kind, registry, scope)
    return isinstance(kind_class, type) and issubclass(kind_class, cls)
