"""What a run shows in the terminal: what a reader needs before the first number; the log file has everything."""

import contextlib
import importlib
import io
import logging
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from mmengine.logging import MMLogger, print_log

# The beginnings of records that go into the log file alone.
_FILE_ONLY = (
    '\n' + '-' * 60 + '\nSystem environment:',
    'Config:\n',
    'Hooks will be executed',
    'paramwise_options -- ',
    'Exp name: ',
    # Of mmengine about itself; what they warn of does no harm here.
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    '`save_param_scheduler` is True but',
    'Distributed training is not used, all SyncBatchNorm',
    'The prefix is not set in metric class',
)
# Parts of warnings about what is not installed and few models need, what PyTorch will change, and what is meant so.
_HARMLESS = (
    'Fail to import ``MultiScaleDeformableAttention``',
    'faster_coco_eval is not installed',
    'Line NMS is not compiled',
    'Default ``avg_non_ignore`` is False',
    'torch.meshgrid: in an upcoming release',
)
_PRINTED = 'Could not import OneDL'
_GROUPS = 6  # rows of the table of parameter groups; of more, the rates are summed up


def warn(text: str) -> None:
    """Log a warning, in the log of the run where there is one."""
    print_log(text, 'current', logging.WARNING)


class _Terminal(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_FILE_ONLY)


def _stream_handlers(logger: logging.Logger) -> list[logging.Handler]:
    return [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]


def shorten(logger: MMLogger) -> MMLogger:
    """Keep config, environment, hooks, single parameters and harmless warnings out of the terminal."""
    for handler in _stream_handlers(logger):
        if not any(isinstance(known, _Terminal) for known in handler.filters):
            handler.addFilter(_Terminal())
    return logger


def hide_harmless_warnings() -> None:
    """Hide warnings of the toolboxes about what is not installed and not needed."""
    for text in _HARMLESS:
        warnings.filterwarnings('ignore', f'(?s).*{text}')


def import_toolbox(scope: str) -> None:
    """Import the data sets, models and metrics of a toolbox without what it prints about optional packages."""
    hide_harmless_warnings()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            for part in ('datasets', 'models', 'evaluation'):
                importlib.import_module(f'{scope}.{part}')
    finally:
        for line in printed.getvalue().splitlines():
            if not line.startswith(_PRINTED):
                print(line)


@contextlib.contextmanager
def warnings_alone(logger: MMLogger) -> Iterator[None]:
    """While it is open, the terminal gets warnings and errors, and what is printed goes into the log file."""
    handlers = [(handler, handler.level) for handler in _stream_handlers(logger)]
    files = [handler.stream for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    for handler, level in handlers:
        handler.setLevel(max(level, logging.WARNING))
    with contextlib.redirect_stdout(files[0] if files else io.StringIO()):
        try:
            yield
        finally:
            for handler, level in handlers:
                handler.setLevel(level)


# ------------------------------------------------------------------------------------------------- parameter groups
def parameter_table(optim_wrapper: Any) -> str:
    """Sum the parameter groups of an optimizer up: a row for each learning rate and weight decay, largest first.

    Args:
        optim_wrapper: of mmengine, or a dictionary of several.
    """
    by_settings: dict[tuple, list[dict]] = defaultdict(list)
    by_decay: dict[tuple, list[dict]] = defaultdict(list)
    for group in _groups(optim_wrapper):
        decay = group.get('weight_decay', 0)
        by_settings[_rate(group), decay].append(group)
        by_decay['any', decay].append(group)
    rows = []
    for (_, decay), groups in (by_settings if len(by_settings) <= _GROUPS else by_decay).items():
        rates, tensors = [_rate(group) for group in groups], [p for group in groups for p in group['params']]
        rate = ' to '.join(f'{end:g}' for end in sorted({min(rates), max(rates)}))
        rows.append((sum(tensor.numel() for tensor in tensors), len(tensors), rate, decay))
    table = [('parameters', 'tensors', 'learning rate', 'weight decay')]
    table += [(f'{n:,}', f'{tensors:,}', rate, f'{decay:g}') for n, tensors, rate, decay in sorted(rows, reverse=True)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return '\n'.join('  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


def _rate(group: dict) -> float:
    return group.get('initial_lr', group['lr'])


def _groups(optim_wrapper: Any) -> Iterator[dict]:
    groups = optim_wrapper.param_groups
    for part in groups.values() if isinstance(groups, dict) else [groups]:
        yield from part
