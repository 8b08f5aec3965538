"""Tables that commands print."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ..apis.results import as_line
from ..console import console, print_table, table_of_numbers

ROWS = 40  # of the table; of more files the classes are counted


class Tally:
    """A table with a row for each file or frame or, of many, how often each class was predicted.

    Args:
        what: they are of: ``'files'`` or ``'frames'``.
    """

    def __init__(self, what: str) -> None:
        self.what, self.failed, self._number, self._begin = what, 0, 0, time.perf_counter()
        self._rows: list[Any] = []
        self._counted: Counter[str] = Counter()

    def add(self, row: dict) -> None:
        """Add a :func:`.record` or an error."""
        self._number += 1
        if len(self._rows) <= ROWS:  # of more there is no room for all
            frame = '' if row.get('frame') is None else f', frame {row["frame"]}'
            self._rows.append((f'{row["file"]}{frame}', as_line(row)))
        if 'error' in row:
            self.failed += 1
        else:
            parts = row.get('objects', row.get('areas'))
            self._counted.update([row['pred_class']] if parts is None else {one['class'] for one in parts})

    def print(self) -> None:
        """Print the table, the time, and how many could not be read."""
        seconds = time.perf_counter() - self._begin
        if len(self._rows) <= ROWS:
            table, rows = Table(self.what[:-1], 'prediction'), self._rows
        else:
            table, rows = table_of_numbers('class', self.what), self._counted.most_common()
        for name, value in rows:
            table.add_row(Text(name), Text(str(value)))
        print_table(console(), table)
        line = f'{self._number} {self.what} in {seconds:.1f} s, {self._number / seconds:.1f} a second'
        print(line + (f'; {self.failed} could not be read' if self.failed else ''))


def figures_of_classes(rows: Sequence[Sequence]) -> Table:
    """Make a table of the rows of :func:`.report_of`: one for each class, and the mean of all."""
    head, *rest = rows
    table = table_of_numbers(*head)
    for row in rest:
        cells = [f'{value:.3f}' if isinstance(value, float) else str(value) for value in row]
        table.add_row(*cells, end_section=row is rest[-2])
    return table
