"""Tables that commands print."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table

ROWS = 40  # of the table; of more files the classes are counted


def summary(rows: Sequence[tuple[str, str]], counted: Counter) -> Table:
    """Make a table with a row for each file, or, of many, how often each class was predicted."""
    if len(rows) <= ROWS:
        table = Table('file', 'prediction')
        for row in rows:
            table.add_row(*row)
        return table
    table = Table('class', 'files')
    table.columns[1].justify = 'right'
    for name, number in counted.most_common():
        table.add_row(name, str(number))
    return table


def figures_of_classes(rows: Sequence[Sequence]) -> Table:
    """Make a table of :attr:`.Report.rows`: a row for each class, and the mean of all."""
    head, *rest = rows
    table = Table(*head)
    for column in table.columns[1:]:
        column.justify = 'right'
    for row in rest:
        cells = [f'{value:.3f}' if isinstance(value, float) else str(value) for value in row]
        table.add_row(*cells, end_section=row is rest[-2])
    return table
