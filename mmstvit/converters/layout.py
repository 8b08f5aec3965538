"""Layouts of published weights: how each is recognised, and how its parameters are renamed."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# What stands before the names of a backbone in files of whole models.
_MODEL = re.compile(r'^(?:backbone|vit|deit|dinov2|dinov2_with_registers)\.')

Rules = Sequence[tuple[str, str | None]]


def bare(name: str) -> str:
    """Return the name of a parameter without the prefix of a backbone."""
    return _MODEL.sub('', name)


class Layout(NamedTuple):
    """How published files of a network name its parameters.

    Attributes:
        description: what such a file is, completing "it looks like".
        marks: names that it has and others lack, as of :func:`bare`.
        rules: pattern and replacement, as in :func:`re.sub`; the first whose pattern matches all of the bare name is
            taken. ``None`` drops what can be derived from sizes.
        finish: changes renamed parameters in place where renaming is not all; takes them, the names of the file, and
            the ``grid`` of :meth:`convert`.
    """

    description: str
    marks: set[str]
    rules: Rules
    finish: Callable[[dict[str, Tensor], Iterable[str], Sequence[int] | None], None]

    def convert(self, state_dict: dict[str, Tensor], grid: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Convert a state dict of this layout.

        Args:
            state_dict: parameters by their published names.
            grid: cells of the network's position table along each axis, where it is known.

        Returns:
            The state dict of a classifier or detector with a backbone of mmstvit; parameters it has no place for keep
            their names.

        Raises:
            ValueError: the position table belongs to no square image, nor to one of ``grid``.
        """
        renamed = {}
        for old, value in state_dict.items():
            name: str | None = old
            for pattern, replacement in self.rules:
                if match := re.fullmatch(pattern, bare(old)):
                    name = replacement and match.expand(replacement)
                    break
            if name is not None:
                renamed[name] = value
        self.finish(renamed, state_dict, grid)
        return renamed


def mmpretrain_layers(old: str, new: str) -> Rules:
    """Return the rules for mmpretrain's transformer layers.

    Args:
        old: pattern of what stands before a layer's parts, with one group, its number.
        new: replacement for it.
    """
    return [
        (rf'{old}\.ln([12])\.(.*)', rf'{new}norm\2.\3'),
        (rf'{old}\.(attn\.(?:qkv|proj)\..*)', rf'{new}\2'),
        (rf'{old}\.ffn\.layers\.0\.0\.(.*)', rf'{new}mlp.fc1.\2'),
        (rf'{old}\.ffn\.layers\.1\.(.*)', rf'{new}mlp.fc2.\2'),
    ]


def join_projections(state_dict: dict[str, Tensor], parts: Sequence[str]) -> None:
    """Fuse separate projections of query, key and value, such as ``q`` and ``kv``, to ``qkv``, in place."""
    for name in [name for name in state_dict if '.attn.q.' in name]:
        own = [name.replace('.attn.q.', f'.attn.{part}.') for part in parts]
        if all(part in state_dict for part in own):
            state_dict[name.replace('.attn.q.', '.attn.qkv.')] = torch.cat([state_dict.pop(part) for part in own])
