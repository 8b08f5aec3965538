"""Speed of networks side by side: ``tools/analysis_tools/benchmark.py``."""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from ..console import console, print_table
from ..deploy.backends import BACKENDS, on_backends
from ..deploy.network import load_networks
from ..errors import one_line_errors
from ..io.files import write_json
from ..measure.networks import quieten
from ..measure.profile import profile_table
from ..measure.report import check_plot, draw, table, write_csv
from ..measure.speed import benchmark
from ..measure.timing import Timing
from .arguments import add_network_arguments, add_shared, add_timing_arguments, output_file, set_threads


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Time networks side by side, with random weights, on the same random inputs. In each round each is '
        'run in turn, forwards in one round and backwards in the next, so that what else the machine does meets all. '
        'Shown are the median over the rounds and, in brackets, the quartiles; the ratio to the baseline is of the two '
        'times of the same round. Memory is that of weights, buffers, optimizer state and the most that the tensors of '
        'a run take on top (by the profiler on a CPU, by the allocator on a GPU). Classifiers are run whole; of a '
        'detector by default the backbone, since the rest is the same in all.',
        epilog='example: mmstvit benchmark stvit-s_8xb128_in1k --batch-size 16 --threads 2',
    )
    add_network_arguments(parser, 'onnx:FILE and openvino:FILE are classifiers or recognisers of mmstvit export.')
    parser.add_argument('--baseline', metavar='CONFIG', help='what they are compared with; default the first of them')
    parser.add_argument('--batch-size', nargs='+', type=int, default=[1, 8], metavar='N', help='default 1 and 8')
    parser.add_argument(
        '--backends',
        nargs='+',
        choices=BACKENDS,
        metavar='NAME',
        help=f'run each network in several back ends of {", ".join(BACKENDS)}; eager is always among them. Ratios are '
        'to the baseline in the same back end and to the eager one. Networks are exported for it, and int8 is '
        'calibrated on random inputs, which settle no accuracy (mmstvit export --int8 takes images)',
    )
    parser.add_argument(
        '--profile',
        action='store_true',
        help='after that, show where the time of each network goes: that of each transformer layer and other part',
    )
    parser.add_argument('--csv', metavar='FILE', help="write the figures there, in the columns of timm's benchmark")
    parser.add_argument('--plot', metavar='FILE', help='draw images per second against top-1 or multiply-adds')
    add_shared(parser, '--device', '--threads')
    add_timing_arguments(parser)
    return parser.parse_args(argv)


def timing_of(args: argparse.Namespace) -> Timing:
    """Return how networks are to be run; raise ``UsageError`` for an option that does not fit."""
    basic = args.device, args.part, args.dtype, args.compile, args.train_step, args.rounds, args.min_time
    timing = Timing(*basic, cast=args.cast, graph=args.cuda_graph)
    for name, endings in dict(json=('.json',), csv=('.csv',), plot=('.png', '.svg', '.pdf')).items():
        output_file(getattr(args, name), f'--{name}', endings)
    return timing


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        timing = timing_of(args)
        quieten()
        set_threads(args.threads, timing.on_gpu)
        networks = load_networks([*args.networks, *([args.baseline] if args.baseline else [])], timing)
        baseline, stderr = len(networks) - 1 if args.baseline else 0, Console(stderr=True)
        if args.plot:
            check_plot(networks, args.shape)
        with Progress(console=stderr, disable=not stderr.is_terminal, transient=True) as progress:
            if args.backends:
                networks, baseline = on_backends(
                    networks, baseline, args.backends, timing, args.batch_size, args.shape, progress
                )
            report = benchmark(networks, timing, baseline, args.batch_size, args.shape, args.profile, progress)
        results, environment, screen = report['results'], report['environment'], console()
        print_table(screen, table(results, results[baseline]), ('memory',))
        for row in (row for row in results if 'parts' in row):
            print_table(screen, profile_table(row['network'], row['batch_size'], row['parts']), ('input', 'tokens'))
        lines = [f'{name.replace("_", " ")}: {value}' for name, value in environment.items() if value]
        screen.print(', '.join(lines), soft_wrap=True)
        if args.json:
            write_json(args.json, report)
        if args.csv:
            write_csv(report, args.csv)
        if args.plot:
            draw(results, environment, args.plot)
