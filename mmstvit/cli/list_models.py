"""The models with their cost and accuracy: ``mmstvit list``."""

import argparse
from collections.abc import Sequence

from rich.table import Table

from ..apis.models import list_models, model_index
from ..errors import UsageError, one_line_errors, suggest
from ..measure.figures import console, readable


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='List the models: what they were made for, multiply-adds of one input, parameters, results and '
        'whether weights are published. A name is good for all other commands, and for mmstvit.get_model.',
        epilog="example: mmstvit list 'stvit-s*'",
    )
    parser.add_argument(
        'pattern', nargs='?', default='*', help='a part of the names to list; * and ? are wildcards; default all'
    )
    parser.add_argument('--names', action='store_true', help='print the names alone, one a line')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        index = model_index()
        names = list_models(f'*{args.pattern}')
        if not names:
            raise UsageError(f'no model has {args.pattern} in its name{suggest(args.pattern, index)}')
        if args.names:
            print(*names, sep='\n')
            return
        table = Table('model', 'task', 'data', 'multiply-adds', 'parameters', 'results', 'weights')
        for column in table.columns[3:5]:
            column.justify = 'right'
        for name in names:
            table.add_row(name, *_cells(index[name]))
        console().print(table)


def _cells(entry: dict) -> tuple[str, ...]:
    about, results = entry['Metadata'], entry['Results']
    # OpenMMLab's metafiles call multiply-adds FLOPs.
    counts = [readable(about[key]) if key in about else '' for key in ('FLOPs', 'Parameters')]
    metrics = [f'{metric} {value}' for result in results for metric, value in (result.get('Metrics') or {}).items()]
    tasks = ', '.join(dict.fromkeys(result['Task'] for result in results))
    data = ', '.join(dict.fromkeys(result['Dataset'] for result in results))
    return tasks, data, *counts, ', '.join(metrics), 'published' if entry.get('Weights') else ''
