"""Base class of the backbones: named architectures and frozen stages."""

from collections.abc import Sequence

import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from ...layers.encoder import Encoder


class Backbone(BaseModule):
    """Base class of backbones with named architectures and ``frozen_stages``.

    Attributes:
        arch_zoo: sizes by name.
        flat_options: options of groups that may be given one by one too.
        frozen_stages: -1: nothing is frozen; 0: what comes before the first stage; n: the first n stages too.
    """

    arch_zoo: dict[str, dict] = {}
    flat_options: tuple[str, ...] = ()
    frozen_stages: int = -1

    @classmethod
    def arch_settings(cls, arch: str | dict) -> dict:
        """Return the settings of an architecture, given by name or as a dict.

        Raises:
            ValueError: an unknown name, or a dict with other keys.
        """
        if isinstance(arch, str):
            if arch not in cls.arch_zoo:
                raise ValueError(f'arch={arch!r} is unknown, choose from {tuple(cls.arch_zoo)} or give a dict')
            return cls.arch_zoo[arch]
        keys = tuple(next(iter(cls.arch_zoo.values())))
        if set(arch) != set(keys):
            raise ValueError(f'arch as a dict needs just the keys {keys}, got {tuple(arch)}')
        return arch

    @staticmethod
    def chosen(out_indices: int | Sequence[int], count: int, what: str) -> tuple[int, ...]:
        """Return the numbers of the outputs that are asked for, from 0; negative ones count from the last.

        Raises:
            ValueError: there are not so many, or they do not ascend.
        """
        numbers = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        indices = tuple(i + count if i < 0 else i for i in numbers)
        ascending = indices == tuple(sorted(set(indices)))
        if not indices or not ascending or not all(0 <= i < count for i in indices):
            raise ValueError(f'out_indices={out_indices} must name some of the {count} {what}, ascending')
        return indices

    def _frozen_modules(self) -> list[nn.Module]:
        """Return the modules that ``frozen_stages`` freezes."""
        raise NotImplementedError

    def _frozen_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that ``frozen_stages`` freezes."""
        return [parameter for module in self._frozen_modules() for parameter in module.parameters()]

    def _freeze(self, frozen_stages: int, stages: int) -> None:
        """Freeze for good; called at the end of the constructor, so that no parameter is without a gradient later."""
        if not -1 <= frozen_stages <= stages:
            raise ValueError(f'frozen_stages={frozen_stages} must be between -1 and {stages}')
        self.frozen_stages = frozen_stages
        for parameter in self._frozen_parameters():
            parameter.requires_grad = False

    def _depth_of(self, name: list[str]) -> int | None:
        """Return the depth of a parameter by the parts of its name, ``None`` for that of the head."""
        raise NotImplementedError

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for mmpretrain's layer-wise learning rate decay.

        Args:
            param_name: the parameter's name in the model.
            prefix: the name of this backbone in the model, with its dot.

        Returns:
            The depth, 0 for the stem, and the number of depths: the layers of all stages, the stem and the head. Patch
            merging has the depth of the layer before it.
        """
        number = 2 + sum(len(module.layers) for module in self.modules() if isinstance(module, Encoder))
        own = param_name.startswith(prefix)
        depth = self._depth_of(param_name.removeprefix(prefix).split('.')) if own else None
        return number - 1 if depth is None else depth, number

    def train(self, mode: bool = True) -> 'Backbone':
        """Set training mode; what is frozen stays in evaluation mode (no dropout, no new batch statistics)."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self


def outputs(outs: list[Tensor], rank: int) -> Tensor | tuple[Tensor, ...]:
    """Return feature maps as a tuple, but a single map of a clip as a tensor, since mmaction2's heads take it so."""
    return outs[0] if rank == 3 and len(outs) == 1 else tuple(outs)
