"""``activation_checkpointing`` of a config without PyTorch's old, reentrant form.

mmengine leaves that form to PyTorch's default. It gives a module no gradient where no direct input of it needs one (a
whole backbone), treats tensors inside lists as if they were outside (a block's context), and takes no keywords. This
can go when mmengine passes ``use_reentrant=False``.
"""

import functools
from collections.abc import Callable

import wrapt


def install() -> None:
    """Change mmengine when the module is imported, at once where it has been."""
    wrapt.register_post_import_hook(_replace, 'mmengine.runner.activation_checkpointing')


def _replace(module) -> None:
    module.wrap_forward = wrap_forward


def wrap_forward(forward: Callable) -> Callable:
    """A ``forward`` that keeps no activations for the backward pass and computes them again.

    Raises:
        ValueError: ``forward`` is that of a list of modules, which nothing calls.
    """
    from torch.utils.checkpoint import checkpoint

    if forward.__name__ == '_forward_unimplemented':
        raise ValueError(
            f'activation_checkpointing names a {type(forward.__self__).__name__}, which is never called itself: '
            'name its members, e.g. backbone.encoder.layers.0'
        )

    @functools.wraps(forward)
    def checkpointed(*args, **kwargs):
        return checkpoint(functools.partial(forward, **kwargs), *args, use_reentrant=False)

    return checkpointed
