"""The registries of mmstvit, children of mmengine's under the scope ``mmstvit``.

mmengine imports ``<scope>.registry`` by itself when it meets a scoped name, and then the ``locations`` given here, so
``type='mmstvit.STViT'`` works in a config of any OpenMMLab toolbox without ``custom_imports``.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmstvit', locations=['mmstvit.models'])
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='mmstvit', locations=['mmstvit.datasets'])
FUNCTIONS = Registry('function', parent=MMENGINE_FUNCTIONS, scope='mmstvit', locations=['mmstvit.engine.fsdp'])
RUNNERS = Registry('runner', parent=MMENGINE_RUNNERS, scope='mmstvit', locations=['mmstvit.engine.runner'])
STRATEGIES = Registry('strategy', parent=MMENGINE_STRATEGIES, scope='mmstvit', locations=['mmstvit.engine.fsdp'])
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mmstvit',
    locations=[
        'mmstvit.engine.activation_checkpointing',
        'mmstvit.engine.checkpoints',
        'mmstvit.engine.nonfinite',
        'mmstvit.engine.token_pictures',
        'mmstvit.engine.videos',
        'mmstvit.visualization.clips',
    ],
)
