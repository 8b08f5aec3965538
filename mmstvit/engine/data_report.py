"""What the splits of a config have, side by side: classes, counts, and what one has and another lacks."""

from collections.abc import Iterable, Sequence
from typing import Any

from ..datasets.counts import Counts
from .class_names import class_names
from .datasets import with_inner
from .folders import shown


def counts_of(dataset: Any) -> Counts:
    """The counts of a built data set and those inside it; of kinds that nothing is known of, the samples alone."""
    inner = [part.counts for part in with_inner(dataset) if isinstance(getattr(part, 'counts', None), Counts)]
    if not inner:
        return Counts(samples=len(dataset))
    total = Counts()
    for one in inner:
        total.join(one)
    return total


def names_of(counts: Sequence[Counts], dataset: Any) -> list[str]:
    """Names of classes by number: those of a data set, or the numbers that occur."""
    names = class_names(dataset) if dataset is not None else None
    if names:
        return list(names)
    return [str(i) for i in range(max((max(c.labels) + 1 for c in counts if c.labels), default=0))]


def lacking(counts: Counts, names: Sequence[str]) -> list[str]:
    """The classes that nothing is labelled with, where anything is."""
    return [name for i, name in enumerate(names) if not counts.labels[i]] if counts.labels else []


def describe_split(counts: Counts, names: Sequence[str]) -> str:
    """One line of a split: ``'1,347 samples of 10 classes (131 to 137 each)'``, and the classes that it lacks."""
    parts = [f'{counts.samples:,} samples']
    if counts.objects is not None:
        parts[0] = f'{counts.samples:,} images with {counts.objects:,} objects'
    if counts.labels:
        each = [counts.labels[i] for i in range(len(names)) if counts.labels[i]]
        parts[0] += f' of {len(each)} classes' + (f' ({size_range(each)} each)' if each else '')
    parts += [f'{n:,} {what}' for n, what in ((counts.crowds, 'crowds'), (counts.left_out, 'left out')) if n]
    absent = lacking(counts, names)
    if absent:
        parts.append(f'without {shown(absent)}')
    return ', '.join(parts)


def size_range(sizes: Iterable[Any]) -> str:
    """The smallest to the largest of some numbers, or of widths and heights."""
    sizes = list(sizes)
    if not sizes or not isinstance(sizes[0], tuple):
        ends = [f'{end:,}' for end in dict.fromkeys((min(sizes), max(sizes)))] if sizes else []
    else:
        columns = list(zip(*sizes, strict=True))
        ends = list(dict.fromkeys(' x '.join(str(pick(column)) for column in columns) for pick in (min, max)))
    return ' to '.join(ends)
