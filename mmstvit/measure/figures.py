"""Multiply-adds, parameters and tokens of a network, as tables."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch
from rich.table import Table

from ..console import readable, table_of_numbers
from .complexity import Complexity, Part, count
from .inputs import Inputs
from .networks import Network, input_shape


@dataclass(frozen=True)
class Figures:
    """A network, its input, and what it costs there."""

    label: str
    shape: tuple[int, ...]
    whole: Complexity
    backbone: int
    backbone_parameters: int

    def as_dict(self) -> dict:
        """Return the figures in JSON's types."""
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
        shape: see :func:`mmstvit.measure.networks.input_shape`.
    """
    shape = input_shape(network, shape)
    inputs = Inputs(network, shape, 1)
    with torch.no_grad():
        whole = count(inputs.run, module=network.model)
    model: Any = network.model  # of any toolbox
    if network.has_backbone:
        parameters = sum(p.numel() for p in model.backbone.parameters())
        return Figures(network.label, shape, whole, whole.modules['backbone'], parameters)
    names = {module: name for name, module in network.model.named_modules()}
    classifier = model.get_classifier()
    parameters = whole.parameters - sum(p.numel() for p in classifier.parameters())
    return Figures(network.label, shape, whole, whole.multiply_adds - whole.modules[names[classifier]], parameters)


def part_table(row: Figures) -> Table:
    """Make a table of the parts of a network, stage by stage."""
    size = ' x '.join(map(str, row.shape))
    heads = ('part', 'input', 'tokens', 'multiply-adds', 'FLOPs', 'parameters')
    table = table_of_numbers(*heads, title=f'{row.label}, {size}')
    for stage, group in groupby(row.whole.parts, key=lambda part: part.stage):
        parts = list(group)
        if len(parts) > 1:
            sums = [sum(getattr(part, name) for part in parts) for name in ('multiply_adds', 'flops', 'parameters')]
            table.add_row(stage, '', '', *map(readable, sums), style='bold')
        for part in parts:
            name = part.name if len(parts) == 1 else f'  {part.name.removeprefix(stage).removeprefix(".")}'
            table.add_row(name or 'outside these', *entering(part), *_costs(part))
    table.add_section()
    table.add_row('backbone', '', '', *map(readable, (row.backbone, 2 * row.backbone, row.backbone_parameters)))
    table.add_row('in all', '', '', *_costs(row.whole), style='bold')
    return table


def entering(part: Part) -> tuple[str, str]:
    """Format what enters a part: the shape of its input, and its tokens."""
    shape = '' if part.input is None else ' x '.join(map(str, part.input))
    tokens = '' if part.tokens is None else str(part.tokens)
    return shape, tokens if part.context is None else f'{tokens} seeing {part.context}'


def _costs(of: Part | Complexity) -> tuple[str, str, str]:
    return readable(of.multiply_adds), readable(of.flops), readable(of.parameters)


def comparison(rows: Sequence[Figures]) -> Table:
    """Make a table of several networks, with ratios to the first."""
    heads = ('network', 'input', 'multiply-adds', 'FLOPs', 'parameters', 'multiply-adds of the backbone')
    table = table_of_numbers(*heads)
    first, *others = [(r.whole.multiply_adds, r.whole.flops, r.whole.parameters, r.backbone) for r in rows]
    for row, values in zip(rows, (first, *others)):
        cells = [f'{readable(value)} ({value / base:.2f} x)' for value, base in zip(values, first)]
        table.add_row(row.label, ' x '.join(map(str, row.shape)), *cells)
    return table
