"""The backbones in every form, small enough for a test, and how they are run."""

import torch

from projects.gpu_report.parity import network
from projects.gpu_report.small import BACKBONES, PLAIN

__all__ = ['BACKBONES', 'PLAIN', 'build', 'maps']


def build(name):
    return network(name)[0]


def maps(outs):
    return [outs] if isinstance(outs, torch.Tensor) else list(outs)
