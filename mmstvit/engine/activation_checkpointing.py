"""``activation_checkpointing`` of a config without PyTorch's old, reentrant form.

mmengine leaves that form to PyTorch's default. It gives a module no gradient where no direct input of it needs one (a
whole backbone), treats tensors inside lists as if they were outside (a block's context), and takes no keywords.
"""

import functools
from collections.abc import Callable, Sequence
from operator import attrgetter

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..converters.published import unwrap
from ..registry import HOOKS


@HOOKS.register_module()
class ActivationCheckpointingHook(Hook):
    """Keep no activations of some modules for the backward pass, and compute them again.

    Args:
        modules: names of the modules, e.g. ``'backbone'`` or ``['backbone.encoder.layers.0']``.

    Raises:
        ValueError: one of them is a list of modules, which nothing calls, or its token reduction changes in training.
    """

    def __init__(self, modules: str | Sequence[str]) -> None:
        self.modules = [modules] if isinstance(modules, str) else list(modules)

    def before_train(self, runner: Runner) -> None:
        """Replace the ``forward`` of the modules."""
        model = unwrap(runner.model)
        for name in self.modules:
            module = attrgetter(name)(model)
            module = getattr(module, '_fsdp_wrapped_module', module)  # what FSDP gathers stays gathered meanwhile
            if type(module).forward is nn.Module.forward:
                raise ValueError(
                    f'activation_checkpointing names a {type(module).__name__}, which is never called itself: '
                    'name its members, e.g. backbone.encoder.layers.0'
                )
            if 'forward' in vars(module) and getattr(model, 'budget', None) is not None:
                raise ValueError(
                    f'activation_checkpointing of {name} does not go with budgets that are drawn in training, each of '
                    'which sets what runs its blocks anew: leave one of them out'
                )
            module.forward = _checkpointed(module.forward)


def _checkpointed(forward: Callable) -> Callable:
    @functools.wraps(forward)
    def computed_again(*args, **kwargs):
        return checkpoint(functools.partial(forward, **kwargs), *args, use_reentrant=False)

    return computed_again
