"""A loss that is not finite ends training before the step that would spoil the weights."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils._pytree import tree_leaves

from ..converters.published import unwrap
from ..registry import HOOKS
from .random_state import random_state, set_random_state
from .stopping import TrainingStopped, what_is_left

# What tells a sample from others, the best first.
_NAMES = ('img_path', 'filename', 'img_id', 'sample_idx')


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """Stop when a loss is NaN or infinite, and say where it comes from.

    The loss of each iteration is looked at before the step, and after the backward pass has been started, so that a GPU
    does not wait. The batch then goes through the model once more, with the same random numbers, to find the first
    layer whose output is not finite. With FSDP that layer is not looked for: the other processes would have to take
    part.

    Raises:
        TrainingStopped: naming the layer and the images of the batch; the log names all of them.
    """

    def before_train(self, runner: Runner) -> None:
        """Watch what updates the weights: an optimizer wrapper, or several of them."""
        for wrapper in _wrappers(runner):
            self._watch(runner, wrapper)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep what is needed to compute the iteration again."""
        self._batch: Any = batch_idx, data_batch, random_state()

    def after_train(self, runner: Runner) -> None:
        """Let go of the batch and of the optimizer."""
        self._batch = None
        for wrapper in _wrappers(runner):
            del wrapper.backward

    def _watch(self, runner: Runner, wrapper: Any) -> None:
        backward = wrapper.backward

        def watched(loss: Tensor, **kwargs: Any) -> None:
            backward(loss, **kwargs)
            if not torch.isfinite(loss).all():
                self._stop(runner, wrapper, loss)

        wrapper.backward = watched

    def _stop(self, runner: Runner, wrapper: Any, loss: Tensor) -> None:
        batch_idx, data_batch, state = self._batch
        names = _sample_names(runner, batch_idx, data_batch)
        runner.logger.error(f'The batch whose loss is not finite: {", ".join(names)}')
        shown = ', '.join(names[:3]) + (f' and {len(names) - 3} more, which the log names' if len(names) > 3 else '')
        raise TrainingStopped(
            f'the loss of iteration {runner.iter + 1} is {loss.item()}: {_origin(runner, wrapper, data_batch, state)}; '
            f'the batch is {shown}; the weights are as before it, {what_is_left(runner.work_dir)}'
        )


def _wrappers(runner: Runner) -> list:
    wrapper = runner.optim_wrapper
    return list(wrapper.optim_wrappers.values()) if hasattr(wrapper, 'optim_wrappers') else [wrapper]


def _origin(runner: Runner, wrapper: Any, data_batch: Any, state: dict) -> str:
    """Where the loss of a batch ceases to be finite, in words."""
    if any(isinstance(module, FullyShardedDataParallel) for module in runner.model.modules()):
        return 'with FSDP the layer is not looked for'
    model: Any = unwrap(runner.model)
    set_random_state(state)
    try:
        with first_nonfinite(model) as names, torch.no_grad(), wrapper.optim_context(model):
            model._run_forward(model.data_preprocessor(data_batch, True), mode='loss')
    except Exception as error:  # the answer must not hide what it is about
        return f'computed again, the batch fails ({type(error).__name__})'
    if not names:
        return 'computed again, it is finite'
    return (
        f'{names[0]} is the first layer whose output is not finite'
        if names[0]
        else 'the outputs of all layers are finite'
    )


@contextlib.contextmanager
def first_nonfinite(model: nn.Module) -> Iterator[list[str]]:
    """While it is open, the names of modules whose output is not finite come into a list in the order they end.

    The innermost module comes first; the model itself, with an empty name, last.
    """
    names: list[str] = []

    def look(name: str, output: Any) -> None:
        tensors = (leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point())
        if not all(tensor.isfinite().all() for tensor in tensors):
            names.append(name)

    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: look(name, output))
        for name, module in model.named_modules()
    ]
    try:
        with torch.compiler.set_stance('force_eager'):  # compiled code passes over hooks that are newer
            yield names
    finally:
        for handle in handles:
            handle.remove()


def _sample_names(runner: Runner, batch_idx: int, data_batch: Any) -> list[str]:
    """Names of the samples of a batch: files where they come from files."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    infos = [sample.metainfo for sample in samples or () if hasattr(sample, 'metainfo')]
    names = [name for name in map(_name, infos) if name]
    if names and len(names) == len(infos):
        return names
    loader = runner.train_loop.dataloader
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        return ['one whose samples carry no names']
    # The samplers of the toolboxes give the same order when they are asked again.
    indices = next(itertools.islice(iter(loader.batch_sampler), batch_idx, None))
    infos = [loader.dataset.get_data_info(i) if hasattr(loader.dataset, 'get_data_info') else {} for i in indices]
    return [_name(info) or f'sample {i}' for i, info in zip(indices, infos)]


def _name(info: dict) -> str | None:
    key = next((key for key in _NAMES if info.get(key) is not None), None)
    return key and (str(info[key]) if key in _NAMES[:2] else f'{key} {info[key]}')
