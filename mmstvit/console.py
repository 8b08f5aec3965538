"""Tables on the terminal, at any width, and counts with their units."""

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


def readable(number: int) -> str:
    """Format a count with its unit: G, M, k or none."""
    for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if number >= size:
            return f'{number / size:.2f} {unit}'
    return str(number)


def console() -> Console:
    """Return a console that is wide where the output is no terminal, so that no table is cut."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=1000)


def print_table(screen: Console, table: Table) -> None:
    """Print a table so that nothing in it is cut.

    The first column has the names, which stay on one line; other columns are wrapped between words where the terminal
    is narrow. Where that is not enough, each row is printed as lines of its own: the name, and what stands beside it.
    """
    for i, column in enumerate(table.columns):
        texts = [_text(cell) for cell in (column.header, *column.cells)]
        if i == 0:  # its heading may be wrapped, and rows without a name may begin below it
            column.min_width = max(cell_len(text.plain) for text in texts)
        elif column.justify == 'right':  # numbers with their units
            column.min_width = max([cell_len(text.plain) for text in texts[1:]] + [_longest_word(texts[0])])
        else:
            column.min_width = max(_longest_word(text) for text in texts)
        column.overflow = 'fold'
    unbounded: ConsoleOptions = screen.options.update(max_width=100_000)
    if Measurement.get(screen, unbounded, table).minimum <= screen.width:
        screen.print(table)
    else:
        _print_rows(screen, table)


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
