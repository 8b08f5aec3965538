"""Fully sharded data parallel: mmengine's strategy with what PyTorch of today and these models need.

mmengine's own hands the optimizer's state over in an order of arguments that PyTorch has changed since, clips the
gradients of each process by the norm of its own shard, loads weights past the hooks that know published files, and
applies ``paramwise_cfg`` to shards, which are flat: ``flat_decay_mult=0`` would take the weight decay from all of them.
"""

import copy
import itertools
from typing import Any

import torch
from mmengine._strategy import FSDPStrategy as _FSDPStrategy
from mmengine.device import get_device
from mmengine.optim import BaseOptimWrapper
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from ..layers.block import TransformerBlock
from ..registry import FUNCTIONS, STRATEGIES

# What wrappers put into the names of the parameters inside them.
_PREFIXES = ('_fsdp_wrapped_module.', '_checkpoint_wrapped_module.')


@FUNCTIONS.register_module()
def is_block(module: nn.Module) -> bool:
    """Whether a module is a transformer block of mmstvit: what is worth recomputing in the backward pass."""
    return isinstance(module, TransformerBlock)


@FUNCTIONS.register_module()
def wrap_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """An ``auto_wrap_policy``: each transformer block of mmstvit is a unit that is gathered and freed by itself."""
    return recurse or is_block(module)


@STRATEGIES.register_module()
class FSDPStrategy(_FSDPStrategy):
    """Shard weights, gradients and the optimizer's state over the processes.

    Checkpoints are whole: one process or any number of them can test them and resume from them.

    Args:
        model_wrapper: settings of ``MMFullyShardedDataParallel``; its ``auto_wrap_policy`` is ``'mmstvit.wrap_blocks'``
            unless it says otherwise.
        state_dict_cfg: ``'full'``, or mmengine's dict form of it.
        **kwargs: as in mmengine.

    Raises:
        ValueError: ``state_dict_cfg`` asks for a file a process.
    """

    def __init__(
        self, *, model_wrapper: dict | None = None, state_dict_cfg: str | dict = 'full', **kwargs: Any
    ) -> None:
        wrapper = dict(type='MMFullyShardedDataParallel', auto_wrap_policy='mmstvit.wrap_blocks')
        super().__init__(model_wrapper={**wrapper, **(model_wrapper or {})}, state_dict_cfg=state_dict_cfg, **kwargs)
        if not self._is_full_state_dict():
            raise ValueError(
                f'strategy.state_dict_cfg={state_dict_cfg!r} writes a file a process, which tools/test.py cannot read: '
                "leave it out or set it to 'full'"
            )
        if get_device() == 'cpu':
            # PyTorch copies gathered weights to the CPU or else clones them; on a CPU the first would be views of
            # memory that is freed, and reading them ends the process.
            self.state_dict_config.offload_to_cpu = self.optim_state_dict_config.offload_to_cpu = False

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model and remember what it is before it is sharded; the copy on the meta device takes no memory."""
        built: Any = super().build_model(model)
        self.plain = copy.deepcopy(built).to('meta')
        return built

    def load_model_state_dict(self, state_dict: dict, *, strict: bool = False, revise_keys: Any = ()) -> None:
        """Load weights by way of a plain model: hooks of its parts rename, resize and judge by whole tensors."""
        plain = self.plain.to_empty(device='cpu')
        with FullyShardedDataParallel.summon_full_params(self.model), torch.no_grad():
            own = _tensors(self.model)
            for name, value in plain.state_dict().items():
                value.copy_(own[name])
            _load_checkpoint_to_model(plain, state_dict, strict=strict, revise_keys=list(revise_keys))
            for name, value in plain.state_dict().items():
                own[name].copy_(value)
        plain.to('meta')

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Take the optimizer's whole state; that of a run without sharding too, where numbers stand for parameters."""
        optimizer = self.optim_wrapper.optimizer
        if not all(isinstance(key, str) for group in state_dict['param_groups'] for key in group['params']):
            state_dict = self._by_name(state_dict)
        self.optim_wrapper.load_state_dict(
            FullyShardedDataParallel.optim_state_dict_to_load(self.model, optimizer, state_dict)
        )

    def _by_name(self, state_dict: dict) -> dict:
        names = {id(parameter): name for name, parameter in _tensors(self.model).items()}
        groups = self.optim_wrapper.optimizer.param_groups
        own = [names[id(parameter)] for group in groups for parameter in group['params']]
        theirs = [key for group in state_dict['param_groups'] for key in group['params']]
        name_of = dict(zip(theirs, own, strict=True))
        renamed = [
            dict(group, params=[name_of[key] for key in group['params']]) for group in state_dict['param_groups']
        ]
        state = {name_of[key]: value for key, value in state_dict['state'].items()}
        return dict(state_dict, state=state, param_groups=renamed)

    def build_optim_wrapper(self, optim_wrapper: Any, model: Any = None) -> BaseOptimWrapper:
        """Build the optimizer, in groups as without shards; gradients are clipped by the norm over all processes."""
        shards, whole = _tensors(model), dict(self.plain.named_parameters())
        if isinstance(optim_wrapper, dict) and whole.keys() <= shards.keys():  # not with use_orig_params=False
            for name, parameter in whole.items():
                parameter.requires_grad_(shards[name].requires_grad)
            wrapper = super().build_optim_wrapper(optim_wrapper, self.plain)
            names = {id(parameter): name for name, parameter in whole.items()}
            for group in wrapper.optimizer.param_groups:
                group['params'] = [shards[names[id(parameter)]] for parameter in group['params']]
        else:
            wrapper = super().build_optim_wrapper(optim_wrapper, model)
        if getattr(wrapper, 'clip_func', None) is torch.nn.utils.clip_grad_norm_:
            wrapper.clip_func = lambda parameters, **kwargs: model.clip_grad_norm_(**kwargs)
        return wrapper


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under the names that they have without wrappers."""
    named = itertools.chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    tensors = {}
    for name, value in named:
        for prefix in _PREFIXES:
            name = name.replace(prefix, '')
        tensors[name] = value
    return tensors
