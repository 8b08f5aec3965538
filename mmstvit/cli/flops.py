"""Multiply-adds, parameters and tokens of networks: ``tools/analysis_tools/get_flops.py``."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

import mmengine
import torch
from rich.console import Console
from rich.table import Table

from ..apis.complexity import Complexity, Part, count
from .common import output_file
from .errors import one_line_errors
from .networks import SPECS, Inputs, Network, input_shape, load_network, quieten


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description='Count the multiply-adds, FLOPs (two for each multiply-add) and parameters of networks, in all, of '
        'the backbone alone, and of each part, with the tokens that enter each transformer layer. Counted are matrix '
        'products, convolutions and attention (fused or not); not norms, activations, softmax, pooling, additions and '
        "resizing, nor mmcv's deformable convolutions, which are named where there are any. The figure is of one image "
        'or one clip (of the test views of a video each costs as much). Of a detector it holds backbone, neck and '
        'heads without decoding and non-maximum suppression: the heads of the second stage for as many proposals as '
        'the config lets through (model.test_cfg.rpn.max_per_img), the mask head for as many as mmdet runs it on.',
        epilog='example: mmstvit flops stvit-s_8xb128_in1k timm:deit_small_patch16_224',
    )
    parser.add_argument(
        'networks', nargs='+', metavar='CONFIG', help=f'one table each, then a comparison with the first. {SPECS}'
    )
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help="H W of images, T H W or C T H W of clips; default the config's test size",
    )
    parser.add_argument('--json', metavar='FILE', help='write the figures there')
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Figures:
    """A network, its input, and what it costs there."""

    label: str
    shape: tuple[int, ...]
    whole: Complexity
    backbone: int
    backbone_parameters: int

    def as_dict(self) -> dict:
        """For JSON."""
        whole = self.whole
        return dict(
            network=self.label,
            shape=list(self.shape),
            multiply_adds=whole.multiply_adds,
            flops=whole.flops,
            parameters=whole.parameters,
            backbone=dict(multiply_adds=self.backbone, flops=2 * self.backbone, parameters=self.backbone_parameters),
            parts=[dict(asdict(part), flops=part.flops, stage=part.stage) for part in whole.parts],
            not_counted=list(whole.not_counted),
        )


def figures(network: Network, shape: Sequence[int] | None = None) -> Figures:
    """Count one network on one input, on the CPU.

    Args:
        network: whole; its backbone is taken out of the same count, of timm's networks all but the classifier.
        shape: see :func:`mmstvit.cli.networks.input_shape`.
    """
    shape = input_shape(network, shape)
    inputs = Inputs(network, shape, 1)
    with torch.no_grad():
        whole = count(inputs.run, module=network.model)
    if network.has_backbone:
        parameters = sum(p.numel() for p in network.model.backbone.parameters())
        return Figures(network.label, shape, whole, whole.of('backbone'), parameters)
    names = {module: name for name, module in network.model.named_modules()}
    classifier = network.model.get_classifier()
    parameters = whole.parameters - sum(p.numel() for p in classifier.parameters())
    return Figures(network.label, shape, whole, whole.multiply_adds - whole.of(names[classifier]), parameters)


def readable(number: int) -> str:
    """A count with its unit: G, M, k or none."""
    for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if number >= size:
            return f'{number / size:.2f} {unit}'
    return str(number)


def part_table(found: Figures) -> Table:
    """The parts of a network, stage by stage."""
    size = ' x '.join(map(str, found.shape))
    table = Table('part', 'input', 'tokens', 'multiply-adds', 'FLOPs', 'parameters', title=f'{found.label}, {size}')
    for column in table.columns[1:]:
        column.justify = 'right'
    for stage, group in groupby(found.whole.parts, key=lambda part: part.stage):
        parts = list(group)
        if len(parts) > 1:
            sums = [sum(getattr(part, name) for part in parts) for name in ('multiply_adds', 'flops', 'parameters')]
            table.add_row(stage, '', '', *map(readable, sums), style='bold')
        for part in parts:
            name = part.name if len(parts) == 1 else f'  {part.name.removeprefix(stage).removeprefix(".")}'
            table.add_row(name or 'parameters and products outside these', *entering(part), *_costs(part))
    table.add_section()
    table.add_row(
        'backbone', '', '', readable(found.backbone), readable(2 * found.backbone), readable(found.backbone_parameters)
    )
    table.add_row('in all', '', '', *_costs(found.whole), style='bold')
    return table


def entering(part: Part) -> tuple[str, str]:
    """What enters a part: the shape of its input, and its tokens."""
    shape = '' if part.input is None else ' x '.join(map(str, part.input))
    tokens = '' if part.tokens is None else str(part.tokens)
    return shape, tokens if part.context is None else f'{tokens} seeing {part.context}'


def _costs(of: Part | Complexity) -> tuple[str, str, str]:
    return readable(of.multiply_adds), readable(of.flops), readable(of.parameters)


def comparison(all_found: Sequence[Figures]) -> Table:
    """Several networks, with ratios to the first."""
    table = Table('network', 'input', 'multiply-adds', 'FLOPs', 'parameters', 'multiply-adds of the backbone')
    for column in table.columns[1:]:
        column.justify = 'right'
    first = all_found[0]
    for found in all_found:
        values = [
            (found.whole.multiply_adds, first.whole.multiply_adds),
            (found.whole.flops, first.whole.flops),
            (found.whole.parameters, first.whole.parameters),
            (found.backbone, first.backbone),
        ]
        cells = [f'{readable(value)} ({value / base:.2f} x)' for value, base in values]
        table.add_row(found.label, ' x '.join(map(str, found.shape)), *cells)
    return table


def console() -> Console:
    """Where tables are printed: as wide as they need where the output is no terminal, so that nothing is cut."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=200)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    with one_line_errors():
        args = parse_args(argv)
        output_file(args.json, '--json', ('.json',))
        quieten()
        screen, all_found = console(), []
        networks = [load_network(spec) for spec in args.networks]
        for network in networks:
            found = figures(network, args.shape)
            all_found.append(found)
            screen.print(part_table(found))
            if found.whole.not_counted:
                screen.print(f'Not counted: {", ".join(found.whole.not_counted)}')
        if len(all_found) > 1:
            screen.print(comparison(all_found))
        if args.json:
            mmengine.dump([found.as_dict() for found in all_found], args.json, indent=2)
