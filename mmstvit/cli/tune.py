"""A network as fast as it must be, by removing tokens: ``mmstvit tune``."""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from ..apis.models import chosen_device
from ..apis.tuning import tune
from ..apis.tuning_report import BLOCKS, CARD, CONFIG, agreeing, figures, tries
from ..apis.weights import check_checkpoint
from ..console import console, print_table, table_of_numbers
from ..errors import one_line_errors
from ..measure.networks import quieten
from ..measure.timing import Timing
from .arguments import add_repetitions, add_shared, set_threads


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description='Find how many tokens each layer of a plain vision transformer should remove for it to be as fast '
        'as it must, on this machine and with the weights that it has. It takes minutes; a second run with the same '
        'settings goes on where the first one ended.',
        epilog='example: mmstvit tune vit-tiny_digits --checkpoint work_dirs/vit/epoch_40.pth --data vit-tiny_digits '
        '--target 2x --out tuned',
    )
    parser.add_argument(
        'model', metavar='MODEL', help='a classifier: a name of `mmstvit list`, a config, or a work dir'
    )
    add_shared(parser, '--checkpoint')
    parser.add_argument(
        '--data',
        required=True,
        metavar='FOLDER|CONFIG',
        help='images, of which no labels are needed, or a config, whose test data set is taken',
    )
    parser.add_argument(
        '--target',
        required=True,
        help="2x (times as fast), 10ms (of a batch) or 0.5macs (share of the blocks' multiply-adds)",
    )
    parser.add_argument('--methods', metavar='NAME,...', help='e.g. tome,evit; default all that the model takes')
    parser.add_argument('--batch-size', type=int, default=8, metavar='N', help='default %(default)s')
    parser.add_argument('--images', type=int, default=128, metavar='N', help='at the most; default %(default)s')
    parser.add_argument('--out', metavar='DIR', help='default work_dirs/<config name>/tune')
    add_repetitions(parser, 7, 0.1)
    add_shared(parser, '--device', '--threads', '--trust-checkpoint')
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Tune, and print what comes out."""
    check_checkpoint(args.checkpoint)
    timing = Timing(chosen_device(args.device), rounds=args.rounds, min_time=args.min_time)
    set_threads(args.threads, timing.on_gpu)
    methods = None if args.methods is None else [name.strip() for name in args.methods.split(',')]
    settings = (args.model, args.data, args.target, args.checkpoint, methods, args.batch_size, args.out, args.images)
    stderr, screen = Console(stderr=True), console()
    with Progress(console=stderr, disable=not stderr.is_terminal, transient=True) as progress:
        result = tune(*settings, timing, args.trust_checkpoint, progress)
    heads, *rows = figures(result)
    title = f'batch {result["batch_size"]}, {result["images"]["held_out"]} held-out images'
    table = table_of_numbers(*heads, title=title)
    for row in rows:
        table.add_row(*row)
    print_table(screen, table, (BLOCKS,))
    amounts = ', '.join(map(str, result['tokens']))
    how = 'within' if result['as_predicted'] else 'not within'
    screen.print(f'tokens that leave each block: {amounts}', soft_wrap=True)
    for line in tries(result):
        screen.print(line, soft_wrap=True)
    screen.print(
        f'the measured time differs by {result["difference"]:+.1%} from the predicted one, {how} 5 % '
        f'beside {result["dense"]["difference"]:+.1%} by which the machine has changed in between',
        soft_wrap=True,
    )
    screen.print(f'it {result["verdict"]} one number for all layers, by agreement: {agreeing(result)}', soft_wrap=True)
    screen.print(f'{result["out"]}: {CONFIG} is the network, {CARD} its card', soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        quieten()
        run(args)
