"""Tables that commands print."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

ROWS = 40  # of the table; of more files the classes are counted


def summary(rows: Sequence[tuple[str, str]], counted: Counter) -> Table:
    """Make a table with a row for each file, or, of many, how often each class was predicted."""
    if len(rows) <= ROWS:
        table = Table('file', 'prediction')
        for row in rows:
            table.add_row(*map(Text, row))
        return table
    table = Table('class', 'files')
    table.columns[1].justify = 'right'
    for name, number in counted.most_common():
        table.add_row(Text(name), str(number))
    return table
