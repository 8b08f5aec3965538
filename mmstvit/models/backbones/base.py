"""Base class of the backbones: named architectures and frozen stages."""

import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor


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

    def train(self, mode: bool = True) -> 'Backbone':
        """Set training mode; what is frozen stays in evaluation mode (no dropout, no new batch statistics)."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self


def outputs(outs: list[Tensor], rank: int) -> Tensor | tuple[Tensor, ...]:
    """Return feature maps as a tuple, but a single map of a clip as a tensor, since mmaction2's heads take it so."""
    return outs[0] if rank == 3 and len(outs) == 1 else tuple(outs)
