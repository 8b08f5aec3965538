"""Speed of networks side by side: ``tools/analysis_tools/benchmark.py``."""

import argparse
import os
import re
from collections.abc import Sequence

import mmengine
import torch
from rich.console import Console
from rich.progress import Progress

from ..apis.models import chosen_device
from ..deploy.network import load_onnx
from ..errors import UsageError, one_line_errors
from ..measure.figures import console
from ..measure.networks import SPECS, Network, input_shape, load_network, quieten
from ..measure.profile import profile_parts, profile_table
from ..measure.report import draw, environment, table
from ..measure.timing import DTYPES, Job, costs, measure
from .common import output_file


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Time networks side by side, with random weights, on the same random inputs. All are loaded, and '
        'in each round each is run in turn, forwards in one round and backwards in the next, so that what else the '
        'machine does meets all. Shown are the median over the rounds and, in brackets, the quartiles; the ratio to '
        'the baseline is of the two times of the same round. Memory is that of weights, buffers, optimizer state and '
        'the most that the tensors of a run take on top (on a CPU by the profiler, without what libraries take for '
        'themselves; on a GPU by the allocator). A classifier or recogniser is run whole; of a detector by default the '
        'backbone, since the rest is the same in all and depends on what is found in an image.',
        epilog='example: mmstvit benchmark stvit-s_8xb128_in1k --batch-size 16 --threads 2',
    )
    parser.add_argument(
        'networks',
        nargs='+',
        metavar='CONFIG',
        help=f'{SPECS} onnx:FILE is a classifier or recogniser that export_onnx.py has written, run by ONNX Runtime.',
    )
    parser.add_argument('--baseline', metavar='CONFIG', help='what they are compared with; default the first of them')
    parser.add_argument('--batch-size', nargs='+', type=int, default=[1, 8], metavar='N', help='default 1 and 8')
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help="H W of images, T H W or C T H W of clips; default the first config's test size",
    )
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='all but float32 by autocast')
    parser.add_argument('--compile', action='store_true', help='torch.compile, for each batch size anew')
    parser.add_argument(
        '--train-step',
        action='store_true',
        help='time a training step of the whole network: forward, loss (of the config; of timm cross-entropy), '
        'backward, AdamW; multiply-adds stay those of a forward',
    )
    parser.add_argument(
        '--part', choices=('model', 'backbone'), help='what is run; default the backbone of detectors, else the model'
    )
    parser.add_argument('--device', help='default a GPU where there is one')
    parser.add_argument('--threads', type=int, metavar='N', help='of a CPU; default as PyTorch chooses')
    parser.add_argument('--rounds', type=int, default=11, metavar='N', help='default %(default)s')
    parser.add_argument(
        '--min-time',
        type=float,
        default=0.3,
        metavar='SECONDS',
        help='the least time that a network is run for in a round, default %(default)s',
    )
    parser.add_argument(
        '--profile',
        action='store_true',
        help='after that, show where the time of each network goes: that of each transformer layer and other part',
    )
    parser.add_argument('--json', metavar='FILE', help='write all figures there')
    parser.add_argument('--plot', metavar='FILE', help='draw images per second against top-1 or multiply-adds')
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    """Fill in the defaults, and refuse what cannot take effect.

    Raises:
        UsageError: an option that does not fit the machine or the others.
    """
    if min(args.batch_size) < 1 or args.rounds < 1 or args.min_time < 0:
        raise UsageError('--batch-size and --rounds must be at least 1, --min-time at least 0')
    device = chosen_device(args.device)
    if not re.fullmatch(r'cpu|cuda(:\d+)?', device):
        raise UsageError(f'--device {device}: give cpu, cuda, or cuda:1 for the second GPU')
    args.device = torch.device(device)
    on_gpu = args.device.type == 'cuda'
    if on_gpu and not torch.cuda.is_available():
        raise UsageError(f'--device {args.device}: no GPU is visible')
    if on_gpu and args.threads is not None:
        raise UsageError('--threads is of a CPU: leave it out, or give --device cpu')
    if args.threads is not None and args.threads < 1:
        raise UsageError('--threads must be at least 1')
    if not on_gpu and args.dtype == 'float16':
        raise UsageError(
            '--dtype float16 is for GPUs, CPUs compute most of it in float32: give bfloat16 or --device cuda'
        )
    if args.train_step and args.part == 'backbone':
        raise UsageError('--train-step is of the whole network, which has the loss: leave --part backbone out')
    if args.profile and (args.train_step or args.compile):
        raise UsageError('--profile is of inference as it is written: leave --train-step and --compile out')
    output_file(args.json, '--json', ('.json',))
    output_file(args.plot, '--plot', ('.png', '.svg', '.pdf'))


def load_all(args: argparse.Namespace) -> tuple[list[Network], int]:
    """The networks, the baseline among them, on their device, and which it is."""
    given = [*args.networks, args.baseline] if args.baseline else args.networks
    networks = [
        load_onnx(spec.removeprefix('onnx:'), args) if spec.startswith('onnx:') else load_network(spec)
        for spec in given
    ]
    if args.part is None:
        detectors = any(network.toolbox == 'mmdet' for network in networks)
        args.part = 'backbone' if detectors and not args.train_step else 'model'
    for network in networks:
        if args.part == 'backbone' and not network.has_backbone:
            raise UsageError(f'{network.label} has no backbone that runs alone: give --part model')
        network.model.to(args.device)
    return networks, len(networks) - 1 if args.baseline else 0


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # the profiler's own messages
    with one_line_errors():
        args = parse_args(argv)
        check_args(args)
        quieten()
        if args.threads:
            torch.set_num_threads(args.threads)
        networks, baseline = load_all(args)
        # The same for all; it raises where one of them takes clips and another images.
        shape = [input_shape(network, args.shape or networks[0].size) for network in networks][0]
        about = [costs(network, shape, args) for network in networks]
        if args.plot and any(row['multiply_adds'] is None for row in about):
            raise UsageError('--plot: an ONNX file tells its multiply-adds only at the size that it was exported for')
        stderr = Console(stderr=True)
        results = []
        with Progress(console=stderr, disable=not stderr.is_terminal, transient=True) as progress:
            for batch in args.batch_size:
                measured = measure(networks, baseline, shape, batch, args, progress)
                if args.profile:
                    for network, row in zip(networks, measured, strict=True):
                        # ONNX Runtime's parts are not those of a module.
                        if network.toolbox != 'onnx':
                            row['parts'] = profile_parts(Job(network, shape, batch, args), args.rounds)
                results += [{**row, **more} for row, more in zip(measured, about, strict=True)]
        base = dict(results[baseline])
        setting = environment(args, shape, base['network'])
        screen = console()
        screen.print(table(results, base))
        for row in (row for row in results if 'parts' in row):
            screen.print(profile_table(row['network'], row['batch_size'], row['parts']))
        screen.print(
            ', '.join(f'{name.replace("_", " ")}: {value}' for name, value in setting.items() if value), soft_wrap=True
        )
        if args.json:
            mmengine.dump(dict(environment=setting, results=results), args.json, indent=2)
        if args.plot:
            draw(results, setting, args.plot)
