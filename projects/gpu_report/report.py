"""The results of the suite as CSV, in the columns of timm's benchmark and some more, and as a page of Markdown."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmstvit.io.files import write_whole
from mmstvit.measure.report import timm_columns, write_rows
from mmstvit.measure.timing import Spread

from ..markdown import table
from .entries import Entry, gpu_entries

COLUMNS = (
    *('section', 'model', 'method', 'options', 'budget', 'tokens', 'infer_samples_per_sec', 'samples_per_sec_low'),
    *('samples_per_sec_high', 'infer_step_time', 'infer_batch_size', 'infer_img_size', 'infer_gmacs', 'param_count'),
    *('peer', 'times_as_fast', 'times_as_fast_low', 'times_as_fast_high', 'peak_mb', 'kernel', 'dtype', 'precision'),
    *('mode', 'device', 'torch', 'value', 'limit', 'note', 'error'),
)
_TITLES = dict(
    speed='Inference',
    proportional='Proportional attention',
    graph='CUDA graphs, batch 1',
    compile='torch.compile',
    train='Training step (AMP)',
)
UNTESTED = 'untested'
_NO_GPU = (
    '**Untested on a GPU so far.** The figures below are of a CPU, where the suite is smaller: they show that it runs,',
    'and say nothing of a GPU. What a GPU is asked for is listed at the end.',
)
_HOW = (
    'Networks of a table run in turn on the same random inputs with random weights; shown are the median and the',
    'quartiles over the rounds. A ratio is of times in the same round, to the first network of the table. In lower',
    'precision the weights are cast, unless `autocast` is said. Memory is that of weights and the most that a run',
    'takes on top. Attention is the kernel that PyTorch took: a mask rules `flash` out. Images a second can be',
    'compared within one table alone: small batches wait for the processor, and what else it does changes.',
)
_STARTS = (
    'Where a batch takes no more than 1.3 times the time of one image, the device waits for the processor to start',
    'kernels: there fewer tokens win nothing, and a method with many small operators loses. CUDA graphs, below, start',
    'them all at once.',
)
_DIFFERENCE = (
    'The largest difference of the outputs of small networks from those of the CPU in float32, in spreads (largest',
    'minus smallest) of these, and what is allowed. In low precision a reduction may take another token.',
)


def csv_rows(report: dict) -> list[dict]:
    """Return a row of all ``COLUMNS`` for each network of each entry; what has no value is empty."""
    setting = report['environment']
    rows = []
    for entry in report['entries'].values():
        peer = entry['rows'][0]['network']
        for row in entry['rows']:
            cells = dict(section=entry['section'], model=row['network'], mode=entry['mode'], dtype=row['dtype'])
            cells['infer_batch_size'] = entry['batch']
            if 'images_per_second' in row:
                speed = row['images_per_second']
                cells.update(timm_columns(row, row['input']), peer=peer, precision=row['precision'])
                cells.update(samples_per_sec_low=round(speed['low'], 2), samples_per_sec_high=round(speed['high'], 2))
                cells.update(peak_mb=round(row['peak_memory'] / 2**20, 1), kernel=row['kernel'])
            cells.update({name: row[name] for name in ('value', 'limit', 'note', 'error') if name in row})
            cells.update(device=setting['device'], torch=setting['torch'])
            rows.append({name: cells.get(name, '') for name in COLUMNS})
    return rows


def write_csv(report: dict, path: str | Path) -> None:
    """Write the CSV; without an entry there is no file."""
    if rows := csv_rows(report):
        write_rows(rows, path)


def write_page(report: dict, path: str | Path) -> None:
    """Write the page."""
    write_whole(Path(path), ('\n'.join(page(report)).rstrip() + '\n').encode())


def page(report: dict) -> Iterator[str]:
    """Yield the lines of the page."""
    setting, entries = report['environment'], report['entries'].values()
    on_gpu = setting['threads'] is None
    yield '# Speed and parity on a GPU'
    yield ''
    if not on_gpu:
        yield from (*_NO_GPU, '')
    yield f'{setting["device"]}, PyTorch {setting["torch"]}, mmstvit {setting["mmstvit"]}, {report["date"]}. Command:'
    yield ''
    yield f'    {report["command"]}'
    yield ''
    yield from _HOW
    for section, title in _TITLES.items():
        of_section = [entry for entry in entries if entry['section'] == section]
        if of_section:
            yield from ('', f'## {title}')
        for names in dict.fromkeys(_names(entry) for entry in of_section):
            yield from _speeds([entry for entry in of_section if _names(entry) == names])
        if of_section and section == 'speed' and on_gpu:
            yield from _bound_by_starts(of_section)
    yield from _masked(list(entries))
    yield from _parity(list(entries))
    yield from _failures(report)
    if not on_gpu:
        yield from ('', '## Asked of a GPU', '', table(('networks', 'dtype', 'batch', 'how', 'images/s'), _asked()))


def _names(entry: dict) -> tuple[str, ...]:
    return tuple(row['network'] for row in entry['rows'])


def _speeds(entries: Sequence[dict]) -> Iterator[str]:
    """Yield the table of networks that ran side by side, at all dtypes and batches."""
    cells = []
    for entry in sorted(entries, key=lambda e: (e['rows'][0]['dtype'], e['batch'])):
        for row in entry['rows']:
            if 'error' in row:
                cells.append((row['network'], row['dtype'], entry['batch'], row['error'], '', '', ''))
                continue
            speed, ratio = Spread(**row['images_per_second']), Spread(**row['ratio'])
            precision = row['dtype'] + (' autocast' if row['precision'] == 'autocast' else '')
            shown = f'{speed:,.0f}' if speed.median >= 100 else f'{speed:,.1f}'
            memory = f'{row["peak_memory"] / 2**20:,.0f}'
            cells.append((row['network'], precision, entry['batch'], shown, f'{ratio:.2f}', memory, row['kernel']))
    yield ''
    yield table(('network', 'dtype', 'batch', 'images/s', 'times as fast', 'peak MiB', 'attention'), cells)


def _bound_by_starts(entries: Sequence[dict]) -> Iterator[str]:
    """Yield up to which batch a network takes the time of a single image, which is that of starting kernels."""
    times: dict[str, dict[int, float]] = {}
    for entry in entries:
        for row in entry['rows']:
            if 'error' not in row and row['dtype'] == entries[0]['rows'][0]['dtype']:
                times.setdefault(row['network'], {})[entry['batch']] = row['seconds']['median']
    yield from ('', *_STARTS, '')
    cells = []
    for network, by_batch in times.items():
        single = by_batch.get(1, 0)
        within = [batch for batch, seconds in by_batch.items() if seconds <= 1.3 * single]
        if within:
            cells.append((network, max(within), f'{1e3 * single:.1f}'))
    yield table(('network', 'up to batch', 'ms'), cells)


def _masked(entries: Sequence[dict]) -> Iterator[str]:
    """Yield which networks in lower precision took another kernel than the fast ones, which take no mask."""
    rows = [row for entry in entries for row in entry['rows'] if row.get('kernel') and row['dtype'] != 'float32']
    kernels = {row['network']: row['kernel'] for row in rows if 'efficient' in row['kernel'] or 'math' in row['kernel']}
    if kernels:
        yield from ('', '## Masks that rule the flash kernel out', '')
        yield 'Relative positions, hidden windows and sizes of tokens are masks. Calls by kernel in one run of:'
        yield from ('', *(f'- {network}: {kernel}' for network, kernel in kernels.items()))


def _parity(entries: Sequence[dict]) -> Iterator[str]:
    """Yield what the device computes beside the CPU in float32."""
    rows = {e['rows'][0]['network']: e['rows'] for e in entries if e['section'] == 'parity' and e['rows']}
    if rows:
        dtypes = list(dict.fromkeys(row['dtype'] for of_case in rows.values() for row in of_case))
        cells = [(case, *(_differs(of_case, dtype) for dtype in dtypes)) for case, of_case in rows.items()]
        yield from ('', '## The same as on the CPU', '')
        yield from (*_DIFFERENCE, '')
        yield table(('network', *dtypes), cells)
    others = [(e, row) for e in entries if e['section'] in ('operators', 'detector') for row in e['rows']]
    if others:
        yield from ('', "Operators of detectors (mmcv's, by torchvision), output and gradient; a small Mask R-CNN:", '')
        cells = [(row['network'], _differs([row], row['dtype']), row.get('note', '')) for _, row in others]
        yield table(('what', 'difference, or loss', ''), cells)


def _differs(rows: Sequence[dict], dtype: str) -> str:
    row = next((row for row in rows if row['dtype'] == dtype), {})
    if 'value' not in row:
        return row.get('error', UNTESTED)
    limit = f' (limit {row["limit"]:g})' if 'limit' in row else ''
    return f'{row["value"]:.1e}{limit}' + (' **too much**' if 'error' in row else '')


def _failures(report: dict) -> Iterator[str]:
    failed = [
        (key, row['network'], row['error'])
        for key, e in report['entries'].items()
        for row in e['rows']
        if 'error' in row
    ]
    if failed:
        yield from ('', '## What failed', '')
        yield from (f'- {network} ({key.partition(":")[0]}): {e}' for key, network, e in failed)
    if report['not_run']:
        yield from ('', '## Not run', '', 'The time was over before:', '', *(f'- {key}' for key in report['not_run']))


def _asked() -> list[tuple]:
    """Return the networks that a GPU is asked for, each group with all its dtypes and batches."""
    groups: dict[tuple, list[Entry]] = {}
    for entry in gpu_entries():
        if entry.section in _TITLES:
            groups.setdefault((entry.section, entry.networks), []).append(entry)
    return [
        (
            ', '.join(networks),
            ', '.join(dict.fromkeys(e.dtype for e in of_group)),
            ', '.join(str(n) for n in sorted({e.batch for e in of_group})),
            _TITLES[section],
            UNTESTED,
        )
        for (section, networks), of_group in groups.items()
    ]
