"""Report a benchmark: a table, the environment, and a plot."""

import csv
import io
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.table import Table

from ..console import readable, table_of_numbers
from ..errors import UsageError
from ..io.files import write_whole
from ..version import __version__
from .networks import Network
from .timing import Spread, Timing


def environment(timing: Timing, shape: Sequence[int], baseline: str) -> dict:
    """Describe what was measured, and on what.

    Args:
        timing: how networks were run.
        shape: (channels, ...) of an input.
        baseline: label of the network that the others are compared with.
    """
    return dict(
        measured='training step' if timing.train_step else 'inference',
        part=timing.part,
        input=' x '.join(map(str, shape)),
        baseline=baseline,
        dtype=timing.dtype,
        compiled=timing.compile,
        rounds=timing.rounds,
        min_time=timing.min_time,
        device=torch.cuda.get_device_name(timing.device) if timing.on_gpu else cpu_name(),
        threads=None if timing.on_gpu else torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        mmstvit=__version__,
        commit=commit(),
    )


def cpu_name() -> str:
    """Return the name of the CPU, where the system has it."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else ()
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the commit of the checkout that mmstvit runs from, with ``+`` where files differ, or ``None``."""
    root = Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return None

    def git(*command: str) -> str:
        return subprocess.run(['git', '-C', str(root), *command], capture_output=True, text=True, check=True).stdout

    try:
        return git('rev-parse', 'HEAD').strip()[:12] + ('+' if git('status', '--porcelain', '-uno') else '')
    except (OSError, subprocess.CalledProcessError):
        return None


def table(results: Sequence[dict], baseline: dict) -> Table:
    """Make a table with a row for each network and batch size."""
    unit, several = 'clips' if baseline['toolbox'] == 'mmaction' else 'images', 'backend' in baseline
    heads = ['network', 'batch', 'ms a run', f'{unit} a second', 'times as fast', 'multiply-adds (share)', 'memory']
    if several:
        heads[4:5] = ['times as fast in it', 'than eager']
        heads.insert(1, 'back end')
    title = f'median (quartiles) of {len(baseline["rounds"])} rounds; baseline: {baseline["network"]}'
    numbers = table_of_numbers(*heads, title=title, names=1 + several)
    for row in results:
        counted = row['multiply_adds'] and baseline['multiply_adds']
        share = row['multiply_adds'] / baseline['multiply_adds'] if counted else None
        numbers.add_row(
            row['network'],
            *([row['backend']] if several else []),
            str(row['batch_size']),
            f'{Spread(*(1000 * t for t in row["seconds"].values())):.1f}',
            f'{Spread(**row["images_per_second"]):.1f}',
            f'{Spread(**row["ratio"]):.2f}',
            *([f'{Spread(**row["ratio_to_eager"]):.2f}'] if several else []),
            f'{readable(row["multiply_adds"])} ({share:.2f})' if counted else '-',
            f'{row["peak_memory"] / 2**20:.0f} MiB' if row['peak_memory'] else '-',
        )
    return numbers


def write_csv(report: dict, path: str) -> None:
    """Write a row for each network and batch size, in the columns of timm's benchmark and some more.

    Args:
        report: of :func:`.benchmark`.
        path: the file to write.
    """
    setting = report['environment']
    of_setting = {name: setting[name] for name in ('device', 'threads', 'dtype', 'compiled', 'torch')}
    write_rows([{**timm_columns(row, setting['input']), **of_setting} for row in report['results']], path)


def timm_columns(row: dict, shape: str) -> dict:
    """Return the figures of a network at one batch size in the columns of timm's benchmark, and some more.

    Args:
        row: of the results of :func:`.benchmark`.
        shape: of an input, as :func:`environment` has it.
    """
    reduction = row['reduction'] or dict(method='none', options={}, share=1.0, tokens=[])
    return dict(
        model=row['network'].partition('+')[0],
        **(dict(backend=row['backend']) if 'backend' in row else {}),
        method=reduction['method'],
        options=', '.join(f'{name}={value}' for name, value in reduction['options'].items()),
        budget=round(reduction['share'], 3),
        tokens=' '.join(map(str, reduction['tokens'])),
        infer_samples_per_sec=round(row['images_per_second']['median'], 2),
        infer_step_time=round(1000 * row['seconds']['median'], 3),
        infer_batch_size=row['batch_size'],
        infer_img_size=shape.rpartition(' ')[2],
        infer_gmacs=row['multiply_adds'] and round(row['multiply_adds'] / 1e9, 3),
        param_count=round(row['parameters'] / 1e6, 2),
        times_as_fast=round(row['ratio']['median'], 3),
        times_as_fast_low=round(row['ratio']['low'], 3),
        times_as_fast_high=round(row['ratio']['high'], 3),
        **(dict(times_as_fast_as_eager=round(row['ratio_to_eager']['median'], 3)) if 'backend' in row else {}),
    )


def write_rows(rows: Sequence[dict], path: str | Path) -> None:
    """Write rows as CSV, atomically.

    Args:
        rows: the first has all columns.
        path: the file to write.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_whole(Path(path), text.getvalue().encode())


def check_plot(networks: Sequence[Network], shape: Sequence[int] | None) -> None:
    """Refuse a plot of multiply-adds that are not known."""
    size = tuple(shape or networks[0].size)
    if any(network.stated and network.size != size[-len(network.size) :] for network in networks):
        raise UsageError('--plot: an exported file tells its multiply-adds only at the size that it was exported for')


def _name(row: dict) -> str:
    """Return the name of a row in a plot."""
    return ', '.join(filter(None, (row['network'], row.get('backend'))))


def draw(results: Sequence[dict], setting: dict, path: str) -> None:
    """Draw images per second against top-1, where all have one, or against multiply-adds; one panel a batch size.

    Args:
        results: of all networks and batch sizes.
        setting: of :func:`environment`.
        path: the file to write.
    """
    from matplotlib.figure import Figure

    batches = list(dict.fromkeys(row['batch_size'] for row in results))
    against_top1 = all(row['top1'] is not None for row in results)
    names = list(dict.fromkeys(map(_name, results)))
    unit = 'clips' if any(row['toolbox'] == 'mmaction' for row in results) else 'images'
    figure = Figure((2 + 3.6 * len(batches), 3.6 + 0.25 * len(names)), layout='constrained')
    panels = figure.subplots(1, len(batches), squeeze=False)
    for panel, batch in zip(panels[0], batches):
        for row in (row for row in results if row['batch_size'] == batch):
            number, speed = names.index(_name(row)), row['images_per_second']
            panel.errorbar(
                row['top1'] if against_top1 else row['multiply_adds'] / 1e9,
                speed['median'],
                [[speed['median'] - speed['low']], [speed['high'] - speed['median']]],
                fmt='D' if row['network'] == setting['baseline'] else 'o',
                color=f'C{number % 10}',
                capsize=3,
                label=_name(row) + (' (baseline)' if row['network'] == setting['baseline'] else ''),
            )
        panel.margins(0.15)
        panel.set_ylim(bottom=0)
        if not against_top1:
            panel.set_xlim(left=0)
        panel.set_title(f'batch size {batch}', fontsize=10)
        panel.set_xlabel('top-1 accuracy, %' if against_top1 else 'multiply-adds of a forward, G')
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
    panels[0][0].set_ylabel(f'{unit} a second, {setting["measured"]}')
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc='outside lower center', frameon=False)
    threads = f', threads: {setting["threads"]}' if setting['threads'] else ''
    figure.suptitle(f'{setting["device"]}{threads}, {setting["dtype"]}, input {setting["input"]}', fontsize=10)
    figure.savefig(path, dpi=150)
