"""Renaming by rules, shared by the published layouts."""

import re
from collections.abc import Sequence

from torch import Tensor


def rename(state_dict: dict[str, Tensor], rules: Sequence[tuple[str, str | None]]) -> dict[str, Tensor]:
    """Rename parameters by the first rule whose pattern is the whole name; others keep theirs.

    Args:
        state_dict: parameters by name.
        rules: pattern and replacement, as in :func:`re.sub`; ``None`` drops what can be derived from sizes.
    """
    renamed = {}
    for name, value in state_dict.items():
        for pattern, replacement in rules:
            if re.fullmatch(pattern, name):
                name = None if replacement is None else re.sub(pattern, replacement, name)
                break
        if name is not None:
            renamed[name] = value
    return renamed
