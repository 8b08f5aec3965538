"""Validation of backbone options."""

from collections.abc import Sequence
from typing import Any


def axes_of(name: str, value: int | Sequence[int], rank: int | None = None) -> tuple[int, ...]:
    """Expand an option to one integer per axis.

    Args:
        name: of the option.
        value: as it was given; one number stands for all axes of an image, and for none of a clip's alone.
        rank: axes, 2 of an image or 3 of a clip; by default as many as it has, see :func:`rank_of`.

    Raises:
        ValueError: it has not so many numbers, or one is no positive integer.
    """
    rank = rank_of(name, value) if rank is None else rank
    numbers: Any = (value,) * rank if isinstance(value, int) and rank == 2 else value
    positive = isinstance(numbers, Sequence) and all(isinstance(n, int) and n > 0 for n in numbers)
    if not positive or len(numbers) != rank:
        axes = 'one number or (rows, columns)' if rank == 2 else '(time, rows, columns)'
        raise ValueError(f'{name}={value!r} must be {axes}, of positive integers')
    return tuple(numbers)


def rank_of(name: str, value: int | Sequence[int]) -> int:
    """Return the number of axes that an option is for: 2 for images, 3 for clips.

    Raises:
        ValueError: it is for neither.
    """
    rank = 2 if isinstance(value, int) else len(value)
    if rank not in (2, 3):
        raise ValueError(f'{name}={value!r} must have 2 numbers for images or 3 for clips')
    return rank


def check_idle(because: str, **options: tuple) -> None:
    """Refuse options that would change nothing.

    Args:
        because: the option that makes them idle, as it was given.
        **options: the value given and the default of each.

    Raises:
        ValueError: a value is not the default. A default asks for nothing.
    """
    for name, (value, default) in options.items():
        if value != default:
            raise ValueError(f'{name}={value!r} has no effect with {because}: leave it out')


def take_group(name: str, group: dict | None, defaults: dict, options: dict) -> dict:
    """Collect a group of options, which may be given as a dict or one by one.

    Args:
        name: of the group.
        group: the options given as a dict.
        defaults: all options of the group.
        options: what was given one by one; those of the group are taken out.

    Raises:
        ValueError: an unknown option, or one given both ways.
    """
    group = dict(group or {})
    for key in defaults:
        if key in options:
            if key in group:
                raise ValueError(f'{key} is given twice, alone and in {name}')
            group[key] = options.pop(key)
    unknown = [key for key in group if key not in defaults]
    if unknown:
        raise ValueError(f'{name} has no option {unknown[0]!r}, choose from {tuple(defaults)}')
    return {**defaults, **group}
