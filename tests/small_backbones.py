"""The backbones in every form, small enough for a test, and how they are run."""

import torch

from projects.gpu_report.small import BACKBONES, PLAIN

__all__ = ['BACKBONES', 'PLAIN', 'build', 'maps']


def build(name):
    torch.manual_seed(0)
    kind, options, _ = BACKBONES[name]
    return kind(**options).eval()


def maps(outs):
    return [outs] if isinstance(outs, torch.Tensor) else list(outs)
