"""Rule-based renaming of parameters."""

import re
from collections.abc import Sequence

from torch import Tensor


def rename(state_dict: dict[str, Tensor], rules: Sequence[tuple[str, str | None]]) -> dict[str, Tensor]:
    """Rename parameters by the first rule whose pattern matches the whole name.

    Args:
        state_dict: parameters by name.
        rules: pattern and replacement, as in :func:`re.sub`; ``None`` drops what can be derived from sizes.
    """
    renamed = {}
    for old, value in state_dict.items():
        name: str | None = old
        for pattern, replacement in rules:
            if re.fullmatch(pattern, old):
                name = None if replacement is None else re.sub(pattern, replacement, old)
                break
        if name is not None:
            renamed[name] = value
    return renamed


def mmpretrain_layers(old: str, new: str) -> list[tuple[str, str]]:
    """Return the rules for mmpretrain's transformer layers.

    Args:
        old: pattern of what stands before a layer's parts, with one group, its number.
        new: replacement for it.
    """
    old = rf'(?:backbone\.)?{old}\.'
    return [
        (rf'{old}ln([12])\.(.*)', rf'{new}norm\2.\3'),
        (rf'{old}(attn\.(?:qkv|proj)\..*)', rf'{new}\2'),
        (rf'{old}ffn\.layers\.0\.0\.(.*)', rf'{new}mlp.fc1.\2'),
        (rf'{old}ffn\.layers\.1\.(.*)', rf'{new}mlp.fc2.\2'),
    ]
