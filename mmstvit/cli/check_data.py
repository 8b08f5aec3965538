"""Check the data of a config before any training: ``mmstvit check-data``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ..console import console, print_table, table_of_numbers
from ..engine.data_check import DataCheck, Split, check_config, objects_to_find
from ..engine.data_report import size_range
from ..errors import UsageError, one_line_errors
from ..visualization.contact_sheet import contact_sheet
from ..visualization.pictures import write_png
from .common import add_common_arguments, load_config
from .tables import ROWS


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Check the data of a config: classes and counts of each split side by side, sizes, files that are '
        'in no split or in two, and a batch of each, drawn with its labels. Exit code 2 where training or testing '
        'would go wrong.',
        epilog='example: mmstvit check-data digits/stvit-tiny_digits.py',
    )
    parser.add_argument('config', help='the config file')
    parser.add_argument('--out', metavar='DIR', help='folder for the contact sheets; default WORK_DIR/check_data')
    parser.add_argument('--num', type=int, default=16, metavar='N', help='pictures of a sheet, default %(default)s')
    add_common_arguments(parser)
    return parser.parse_args(argv)


def table_of(check: DataCheck) -> Table:
    """Lay the splits out side by side: what they have, then their classes."""
    table = table_of_numbers('', *(split.name for split in check.splits))
    counts = [split.counts for split in check.splits]
    detects = any(one.objects is not None for one in counts)
    rows = {
        'images' if detects else 'samples': [one.samples for one in counts],
        'objects': [one.objects or 0 for one in counts],
        'crowds': [one.crowds for one in counts],
        'images without objects': [one.empty for one in counts],
        'left out by filter_cfg': [one.left_out for one in counts],
    }
    for i, (name, numbers) in enumerate(rows.items()):
        if i == 0 or any(numbers):
            table.add_row(name, *(f'{n:,}' for n in numbers))
    sizes = [size_range(split.counts.sizes or split.files.sizes) for split in check.splits]
    if any(sizes):
        table.add_row('frames' if not any('x' in size for size in sizes) else 'width x height', *sizes)
    table.add_section()
    by_number = {i: [one.labels[i] for one in counts] for i in range(len(check.names))}
    shown = sorted(by_number, key=lambda i: min(by_number[i]))[:ROWS] if len(by_number) > ROWS else by_number
    for i in sorted(shown):
        name = check.names[i]
        table.add_row(name if name == str(i) else f'{i} {name}', *(f'{n:,}' for n in by_number[i]))
    if len(by_number) > ROWS:
        table.add_row(f'... {len(by_number) - ROWS} with more', *('' for _ in counts))
    return table


def draw(split: Split, check: DataCheck, number: int, folder: Path) -> None:
    """Write the contact sheet of a split."""
    count = min(number, len(split.inputs['inputs']))
    title = f'{split.name}: {count} of {split.counts.samples:,}, as the network gets them'
    sheet = contact_sheet(split.inputs, check.preprocessor, check.names, number, title, objects_to_find(split))
    path = folder / f'{split.name}.png'
    write_png(path, sheet)
    print(f'contact sheet: {path}')


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        if args.num < 1:
            raise UsageError(f'--num {args.num}: it must be at least 1')
        cfg = load_config(args)
        out = Path(args.out) if args.out else Path(cfg.work_dir) / 'check_data'
        cfg.work_dir = str(out)  # where the log of what is built goes
        check = check_config(cfg, args.trust_data)
        if check.splits:
            print_table(console(), table_of(check))
        for split in check.splits:
            if split.inputs is not None:
                draw(split, check, args.num, out)
        for note in check.notes:
            print(f'note: {note}')
        for problem in check.problems:
            print(f'error: {problem}', file=sys.stderr)
        if check.problems:
            sys.exit(2)
        print('training and testing can read this data')
