"""Tables on the terminal, at any width, and counts with their units."""

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text


def readable(number: int) -> str:
    """Format a count with its unit: G, M, k or none."""
    for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if number >= size:
            return f'{number / size:.2f} {unit}'
    return str(number)


def table_of_numbers(*heads: str, title: str | None = None, names: int = 1) -> Table:
    """Return an empty table whose first column, or ``names`` columns, has names, and the others numbers."""
    columns = [Column(head, justify='left' if i < names else 'right') for i, head in enumerate(heads)]
    return Table(*columns, title=title)


def console() -> Console:
    """Return a console that is wide where the output is no terminal, so that no table is cut."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=1000)


def print_table(screen: Console, table: Table, optional: Sequence[str] = ()) -> None:
    """Print a table so that no name or number in it is cut.

    The first column has the names, which stay on one line; other columns are wrapped between words where the terminal
    is narrow. Where that is not enough, columns are left out, and at last each row is printed as lines of its own: the
    name, and all that stands beside it.

    Args:
        screen: where it is printed.
        table: its cells are strings or rich's texts.
        optional: headings of the columns that may be left out, the first of these first.
    """
    for number in range(len(optional) + 1):
        columns = [column for column in table.columns if column.header not in optional[:number]]
        widths = _widths(columns, screen.width)
        if widths:
            screen.print(_with_columns(table, columns, widths))
            return
    _print_rows(screen, table)


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Return the width of each column in a table that may be so wide, nothing where something would be cut."""
    least, most = [], []
    for i, column in enumerate(columns):
        texts: Any = (column.header, *column.cells)
        head, *cells = map(_text, texts)
        whole = i == 0 or column.justify == 'right'  # names, and numbers with their units
        least.append(max(_longest_word(head), *(cell_len(c.plain) if whole else _longest_word(c) for c in cells), 1))
        most.append(max(cell_len(text.plain) for text in (head, *cells)))
    spare = width - sum(least) - 3 * len(columns) - 1  # lines, and a blank on either side of a cell
    if spare < 0:
        return []
    for i, (low, high) in enumerate(zip(least, most)):
        least[i] += min(spare, max(0, high - low))
        spare -= least[i] - low
    return least


def _with_columns(table: Table, columns: Sequence[Column], widths: Sequence[int]) -> Table:
    """Return a table that has some of the columns of another one, of these widths."""
    copy = Table(title=table.title)
    for column, width in zip(columns, widths):
        copy.add_column(column.header, justify=column.justify, width=width, overflow='fold')
    for row, *cells in zip(table.rows, *(column.cells for column in columns)):
        copy.add_row(*cells, style=row.style, end_section=row.end_section)
    return copy


def _text(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text.from_markup(cell)


def _longest_word(text: Text) -> int:
    return max(map(cell_len, text.plain.split()), default=0)


def _print_rows(screen: Console, table: Table) -> None:
    """Print each row as its name and, indented below it, the headings and values of the other columns."""
    if table.title:
        screen.print(table.title, style='table.title', soft_wrap=True)
    heads = [str(column.header) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns)):
        name, *values = (_text(cell).plain for cell in cells)
        screen.print(Text(name, 'bold'), soft_wrap=True)
        beside = '; '.join(f'{head} {value.strip()}' for head, value in zip(heads[1:], values) if value.strip())
        for line in Text(beside).wrap(screen, max(20, screen.width - 4)) if beside else ():
            screen.print(Text('    ') + line, soft_wrap=True)
