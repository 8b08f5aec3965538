"""Markdown of the pages that projects write."""

from collections.abc import Iterable, Sequence


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table, without a line break at its end; a bar in a cell, which would end it, becomes a slash."""
    lines = [[str(cell).replace('|', '/') for cell in row] for row in (heads, ['---'] * len(heads), *rows)]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
