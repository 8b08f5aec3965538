"""The models with their cost and accuracy: ``mmstvit list``."""

import argparse
import json
from collections.abc import Sequence

from rich.table import Table

from ..console import console, print_table, readable
from ..errors import UsageError, one_line_errors, suggest
from ..model_index import list_models, model_index, top1_of


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
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--names', action='store_true', help='print the names alone, one a line')
    form.add_argument('--json', action='store_true', help='print a list in JSON, for other programs')
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
        if args.json:
            print(json.dumps([_record(name, index[name]) for name in names], indent=1))
            return
        table = Table('model', 'task', 'data', 'multiply-adds', 'parameters', 'results', 'weights')
        for column in table.columns[3:5]:
            column.justify = 'right'
        for name in names:
            table.add_row(*_cells(_record(name, index[name])))
        print_table(console(), table)


def _record(name: str, entry: dict) -> dict:
    """Return an entry of the model index for other programs; what is unknown is ``None``.

    Returns:
        ``name``, ``tasks`` and ``data``, ``multiply_adds`` of one input, ``params``, ``metrics`` by data set,
        ``accuracy`` (top-1, in per cent), ``weights`` (their address) and ``config`` (its path).
    """
    about, results = entry['Metadata'], entry['Results']
    metrics: dict[str, dict] = {result['Dataset']: {} for result in results}
    for result in results:
        metrics[result['Dataset']].update(result.get('Metrics') or {})
    return dict(
        name=name,
        tasks=list(dict.fromkeys(result['Task'] for result in results)),
        data=list(metrics),
        multiply_adds=about.get('FLOPs'),  # so called in OpenMMLab's metafiles
        params=about.get('Parameters'),
        metrics=metrics,
        accuracy=top1_of(entry),
        weights=entry.get('Weights'),
        config=entry['Config'],
    )


def _cells(model: dict) -> tuple[str, ...]:
    counts = ['' if model[key] is None else readable(model[key]) for key in ('multiply_adds', 'params')]
    metrics = (f'{key} {value}' for of_data in model['metrics'].values() for key, value in of_data.items())
    lists = ', '.join(model['tasks']), ', '.join(model['data'])
    return model['name'], *lists, *counts, ', '.join(metrics), 'published' if model['weights'] else ''
