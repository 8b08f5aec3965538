"""``mmstvit benchmark --suite``: what a machine is asked for in one command."""

import argparse
import shlex

from ..console import console
from ..errors import UsageError
from ..measure.networks import quieten
from ..measure.suite import Suite, run_suite
from ..measure.suite_entries import SECTIONS, entries
from ..measure.suite_report import write_csv, write_page
from .arguments import output_file, repetitions, set_threads

FILE = 'work_dirs/gpu_report/suite.json'
_OF_SUITE = ('minutes', 'page', 'only')
_WITH_SUITE = ('suite', 'networks', *_OF_SUITE, 'json', 'csv', 'device', 'threads', 'rounds', 'min_time')


def add_suite_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the suite and what belongs to it alone."""
    group = parser.add_argument_group(
        'suite',
        'A list of networks beside their dense peers, in lower precision, compiled, as CUDA graphs, in training, and '
        'whether the device computes what the CPU does. An entry that fails is a row with its error. Run again, it '
        'goes on with what its file lacks or what failed.',
    )
    group.add_argument('--suite', action='store_true', help=f'run it; --json is by default {FILE}, --csv beside it')
    group.add_argument('--minutes', type=float, metavar='N', help='stop after so many, default 8; the rest is listed')
    group.add_argument('--page', metavar='FILE', help='write the report there as Markdown')
    group.add_argument('--only', nargs='+', choices=SECTIONS, metavar='SECTION', help=f'of {", ".join(SECTIONS)}')


def check_suite(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that have no effect with the suite, or without it.

    Raises:
        UsageError: there is one.
    """
    if args.suite:
        if args.networks:
            raise UsageError('--suite has networks of its own: give none')
        given = [n for n, value in vars(args).items() if n not in _WITH_SUITE and value != parser.get_default(n)]
        if given:
            raise UsageError(f'--{given[0].replace("_", "-")} has no effect with --suite: leave it out')
        return
    given = [name for name in _OF_SUITE if getattr(args, name) is not None]
    if given:
        raise UsageError(f'--{given[0]} belongs to --suite')
    if not args.networks:
        raise UsageError('give networks, or --suite')


def run(args: argparse.Namespace) -> None:
    """Run the suite as the arguments say."""
    minutes = 8 if args.minutes is None else args.minutes
    if minutes <= 0:
        raise UsageError(f'--minutes {minutes:g}: it must be above 0')
    path = args.json or FILE
    table = args.csv or path.removesuffix('.json') + '.csv'
    for option, name, ending in (('--json', path, '.json'), ('--csv', table, '.csv'), ('--page', args.page, '.md')):
        output_file(name, option, (ending,))
    suite = Suite(args.device, **repetitions(args))
    set_threads(args.threads, suite.timing.on_gpu)
    quieten()

    def written(report: dict) -> None:
        write_csv(report, table)
        if args.page:
            write_page(report, args.page)

    # As anyone would run it: where files went here is of no use to others.
    only = ['--only', *args.only] if args.only else []
    command = shlex.join(['mmstvit', 'benchmark', '--suite', '--minutes', f'{minutes:g}', *only])
    report = run_suite(entries(suite.timing.on_gpu, args.only or ()), suite, minutes, path, written, command)
    failed = sum('error' in row for entry in report['entries'].values() for row in entry['rows'])
    console().print(
        f'{len(report["entries"])} entries in {path} and {table}, {failed} rows with errors, '
        f'{len(report["not_run"])} entries not reached',
        soft_wrap=True,
    )
