"""What a GPU is asked for: ``make gpu-report`` or ``python -m projects.gpu_report``, see ``--help``."""

import argparse
import shlex
from collections.abc import Sequence

from mmstvit.cli.arguments import add_repetitions, add_shared, output_file, set_threads
from mmstvit.console import console
from mmstvit.errors import UsageError, one_line_errors
from mmstvit.measure.networks import quieten

from .entries import SECTIONS, entries
from .report import write_csv, write_page
from .suite import MIN_TIME, ROUNDS, Suite, run_suite


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        prog='python -m projects.gpu_report',
        description='Time networks beside their dense peers, in lower precision, compiled, as CUDA graphs and in '
        'training, and compare what the device computes with the CPU. An entry that fails is a row with its error. '
        'Run again, it goes on with what its file lacks or what failed. On a CPU there are fewer and smaller entries.',
        epilog='example, of a minute on a CPU: python -m projects.gpu_report --device cpu --only operators --rounds 2',
    )
    parser.add_argument('--minutes', type=float, default=8, metavar='N', help='stop after so many, default 8')
    parser.add_argument(
        '--only', nargs='+', default=(), choices=SECTIONS, metavar='SECTION', help=f'of {", ".join(SECTIONS)}'
    )
    parser.add_argument('--json', default='work_dirs/gpu_report/suite.json', metavar='FILE', help='default %(default)s')
    parser.add_argument('--csv', metavar='FILE', help='default beside the JSON file')
    parser.add_argument('--page', metavar='FILE', help='write the report there as Markdown')
    add_shared(parser, '--device', '--threads')
    add_repetitions(parser, ROUNDS, MIN_TIME)
    args = parser.parse_args(argv)
    args.csv = args.csv or args.json.removesuffix('.json') + '.csv'
    return args


def run(args: argparse.Namespace) -> None:
    """Measure, and write what came out after each entry.

    Raises:
        UsageError: it cannot be done.
    """
    if not args.minutes > 0:
        raise UsageError(f'--minutes {args.minutes:g}: it must be above 0')
    for name, ending in dict(json='.json', csv='.csv', page='.md').items():
        output_file(getattr(args, name), f'--{name}', (ending,))
    suite = Suite(args.device, args.rounds, args.min_time)
    set_threads(args.threads, suite.timing.on_gpu)
    quieten()

    def written(report: dict) -> None:
        write_csv(report, args.csv)
        if args.page:
            write_page(report, args.page)

    # As anyone would run it: where files went here is of no use to others.
    only = ['--only', *args.only] if args.only else []
    command = shlex.join(['python', '-m', 'projects.gpu_report', '--minutes', f'{args.minutes:g}', *only])
    selection = entries(suite.timing.on_gpu, args.only)
    report = run_suite(selection, suite, args.minutes, args.json, written, command)
    failed = sum('error' in row for entry in report['entries'].values() for row in entry['rows'])
    console().print(
        f'{len(report["entries"])} entries in {args.json} and {args.csv}, {failed} rows with errors, '
        f'{len(report["not_run"])} entries not reached',
        soft_wrap=True,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        run(parse_args(argv))


if __name__ == '__main__':
    main()
