"""What ``tune`` writes: a config, the schedule, a plot and a model card."""

import json
import shlex
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..io.files import write_json, write_whole
from ..paths import is_address, package_data

BLOCKS = 'multiply-adds of the blocks'
CONFIG, SCHEDULE, PLOT, CARD = 'config.py', 'schedule.json', 'pareto.png', 'README.md'


def check_folder(folder: Path) -> None:
    """Refuse a folder with files named like the results that are not of ``tune``: there is no schedule beside them.

    Raises:
        UsageError: there is one.
    """
    if _is_schedule(folder / SCHEDULE):
        return
    for name in (SCHEDULE, CONFIG, PLOT, CARD):
        if (folder / name).exists():
            raise UsageError(f'{folder / name} is there, and not by an earlier run of tune: give another folder')


def _is_schedule(file: Path) -> bool:
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {'target', 'tokens', 'pareto'} <= content.keys()


def write_report(folder: Path, result: dict[str, Any], base: Path) -> None:
    """Write all files.

    Args:
        folder: where.
        result: what :func:`mmstvit.tune` returns.
        base: the config that is inherited.
    """
    write_json(folder / SCHEDULE, result)
    write_whole(folder / CONFIG, config_text(result, base).encode())
    draw(result, folder / PLOT)
    write_whole(folder / CARD, card(result).encode())


def config_text(result: dict[str, Any], base: Path) -> str:
    """Return the text of a config that inherits one and reduces tokens of its backbone."""
    configs, base = package_data() / 'configs', base.resolve()
    inside = base.is_relative_to(configs.resolve())
    name = f'mmstvit::{base.relative_to(configs.resolve()).as_posix()}' if inside else base.as_posix()
    reduce = dict(type=result['method'], **result['options'])
    lines = [
        f'# {result["measured_times_as_fast"]:.2f} times as fast as the dense network, see {CARD}.',
        f'_base_ = [{name!r}]',
        '',
        'model = dict(backbone=dict(',
        "    _delete_=True, type='mmstvit.Reduced', backbone=_base_.model.backbone,",
        f'    reduce={reduce!r},',
        '))',
    ]
    if checkpoint := result['checkpoint']:
        file = checkpoint if is_address(checkpoint) else Path(checkpoint).resolve().as_posix()
        lines.append(f'load_from = {file!r}')
    return '\n'.join(lines) + '\n'


def command(result: dict[str, Any]) -> str:
    """Return the command that makes a result."""
    words = ['mmstvit', 'tune', result['model'], '--data', result['data'], '--target', result['target']]
    if result['checkpoint']:
        words += ['--checkpoint', result['checkpoint']]
    words += ['--methods', ','.join(name.lower() for name in result['methods'])]
    setting = result['environment']
    numbers = {'--batch-size': result['batch_size'], '--images': result['most_images'], '--rounds': setting['rounds']}
    for option, value in {**numbers, '--min-time': setting['min_time'], '--device': result['device']}.items():
        words += [option, str(value)]
    if setting['threads']:
        words += ['--threads', str(setting['threads'])]
    return shlex.join(words)


def card(result: dict[str, Any]) -> str:
    """Return the model card, in Markdown."""
    setting, images, method = result['environment'], result['images'], result['method']
    threads = f', threads: {setting["threads"]}' if setting['threads'] else ''
    commit = f' ({setting["commit"]})' if setting['commit'] else ''
    heads, *rows = (f'| {" | ".join(cells)} |' for cells in figures(result))
    lines = [
        f'# {Path(result["model"]).stem}, {result["target"]} by {method}',
        '',
        f'{result["measured_times_as_fast"]:.2f} times as fast as the dense network, with its weights.',
        'Nothing was trained. Made by',
        '',
        '```shell',
        command(result),
        '```',
        '',
        heads,
        '|---|---|---|---|---|---|---|',
        *rows,
        '',
        f'Milliseconds are of a batch of {result["batch_size"]} ({setting["input"]} each), medians of',
        f'{setting["rounds"]} rounds in turn. The dense network took {result["dense"]["difference"]:+.1%} more or less',
        'than predicted: so much the machine has changed. Apart from that this schedule differs by',
        f'{result["difference"]:+.1%} from the predicted time, {"" if result["as_predicted"] else "not "}within 5 %.',
        '',
        *(f'- {line}' for line in tries(result)),
        '',
        f'Agreement is the share of {images["held_out"]} held-out images whose best class is that of the dense',
        f'network; the schedule was searched on {images["searched"]} others, of which layers alone were tried on',
        f'{images["costs"]}. It {result["verdict"]} one number for all layers at about the same predicted time, by',
        f'agreement: {agreeing(result)}.',
        '',
        f'- reduction: `{method}`, {_text(result["options"])}',
        f'- tokens that leave each block: {", ".join(map(str, result["tokens"]))}',
        f'- weights: {result["checkpoint"] or "those published for the model"}',
        f'- machine: {setting["device"]}{threads}, {setting["dtype"]}',
        f'- versions: PyTorch {setting["torch"]}, Python {setting["python"]}, mmstvit {setting["mmstvit"]}{commit}',
        '',
        f'[{CONFIG}]({CONFIG}) is the reduced network, [{SCHEDULE}]({SCHEDULE}) has all figures.',
        '',
        f'![Time and agreement]({PLOT})',
        '',
        f'The lines are of {images["plotted"]} of the held-out images, the marks of all.',
    ]
    return '\n'.join(lines) + '\n'


def tries(result: dict[str, Any]) -> list[str]:
    """Say in a line what was predicted of each schedule that was measured, and in one whether the target is kept."""
    lines = [
        f'search {i}: predicted {one["predicted_ms"]:.2f} ms, measured {one["measured_ms"]:.2f} ms, '
        f'{one["measured_times_as_fast"]:.2f} times as fast'
        for i, one in enumerate(result['tried'], 1)
    ]
    return [*lines, f'target {result["target"]}: {"kept" if result["kept"] else "not kept"}']


def agreeing(result: dict[str, Any]) -> str:
    """Say on how many held-out images the schedule, and one number for all layers, agree with the dense network."""
    number = result['images']['held_out']
    ours, theirs = (round(number * one['agreement']) for one in (result, result['constant']))
    return f'{ours} of {number} images against {theirs}'


def _text(options: dict[str, Any]) -> str:
    return ', '.join(f'{key}={value}' for key, value in options.items())


def figures(result: dict[str, Any]) -> list[list[str]]:
    """Return a table: headings, the dense network, the schedule, and one number for all layers."""
    rows = [['network', 'predicted ms', 'measured ms', 'times as fast', BLOCKS, 'agreement', 'top-1']]
    method, constant = result['method'], result['constant']
    named = {'dense': result['dense'], f'{method}, this schedule': result}
    for name, one in {**named, f'{method}, {_text(constant["options"])}': constant}.items():
        numbers = [one['predicted_ms'], one['measured_ms'], one['measured_times_as_fast'], one.get('multiply_adds', 1)]
        shares = ['' if one[key] is None else f'{one[key]:.1%}' for key in ('agreement', 'top1')]
        rows.append([name, *(f'{number:.2f}' for number in numbers), *shares])
    return rows


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw predicted time against agreement, and top-1 where it is known, of the schedules on the front."""
    from matplotlib.figure import Figure

    kinds = ['agreement', *(['top1'] if result['dense']['top1'] is not None else [])]
    figure = Figure((5 * len(kinds), 4), layout='constrained')
    panels = figure.subplots(1, len(kinds), squeeze=False)
    for panel, kind in zip(panels[0], kinds):
        for method in dict.fromkeys(point['method'] for point in result['pareto']):
            points = [point for point in result['pareto'] if point['method'] == method]
            panel.plot(
                [p['predicted_ms'] for p in points], [100 * p[kind] for p in points], '.-', label=method, alpha=0.7
            )
        marks = {
            'dense': ('s', result['dense']),
            'this schedule': ('*', result),
            'one number': ('x', result['constant']),
        }
        for label, (mark, one) in marks.items():
            panel.plot(one['measured_ms'], 100 * one[kind], mark, color='black', label=f'{label}, measured')
        panel.set_xlabel(f'ms of a batch of {result["batch_size"]}, predicted unless said')
        panel.set_ylabel('agreement with the dense network, %' if kind == 'agreement' else 'top-1 accuracy, %')
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
    panels[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=150)
