"""The page on accuracy with fewer tokens, its tables and plots, all from the figures in the JSON file."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..markdown import table
from .plots import _pyplot, _save
from .recovery_measure import CONTROLS

_MARKS = 'osD^vP*Xhd<>'


def spread(values: Iterable[float | None], digits: int = 1, unit: float = 100) -> str:
    """Format the mean of some values and, of more than one, their standard deviation; a dash for none."""
    known = [unit * value for value in values if value is not None]
    if not known:
        return '-'
    mean = f'{statistics.mean(known):.{digits}f}'
    return mean if len(known) == 1 else f'{mean} ± {statistics.stdev(known):.{digits}f}'


def untrained(data: dict[str, Any], method: str, budget: float) -> list[dict[str, Any]]:
    """Return the point of each seed."""
    curves = [seed['methods'].get(method, []) for seed in data['untrained'].values()]
    return [point for curve in curves for point in curve if point['budget'] == budget]


def recovered(data: dict[str, Any], method: str, kind: str, budget: float) -> dict[int, dict[str, Any]]:
    """Return the point of each seed, by seed."""
    by_seed = {}
    for name, run in data.get('recovered', {}).items():
        *start, seed = name.split(' ')
        for point in run['points'] if ' '.join(start) == f'{method} {kind}' else ():
            if point['budget'] == budget:
                by_seed[int(seed)] = point
    return by_seed


def won_back(data: dict[str, Any], method: str, kind: str, budget: float) -> list[float]:
    """Return the part of the accuracy lost by the untrained reduction that recovery has won back, for each seed.

    None, where the seeds lose less than half a point in the mean: of so little a part says nothing.
    """
    lost, won = [], []
    for seed, point in recovered(data, method, kind, budget).items():
        dense = data['untrained'][str(seed)]
        before = next(p['top1'] for p in dense['methods'][method] if p['budget'] == budget)
        lost.append(dense['dense'] - before)
        won.append(point['top1'] - before)
    tells = lost and statistics.mean(lost) >= 0.005 and min(lost) > 0
    return [own / all_of_it for own, all_of_it in zip(won, lost)] if tells else []


def elastic_lead(data: dict[str, Any], method: str, budget: float) -> list[float]:
    """Return by how much the elastic checkpoint's accuracy is above the one recovered at a budget, for each seed."""
    elastic, separate = (recovered(data, method, kind, budget) for kind in ('elastic', str(budget)))
    return [point['top1'] - separate[seed]['top1'] for seed, point in elastic.items() if seed in separate]


def budgets_of(data: dict[str, Any]) -> list[float]:
    """Return the budgets of the untrained curves, the largest first."""
    methods = next(iter(data['untrained'].values()))['methods'].values()
    return sorted({point['budget'] for curve in methods for point in curve}, reverse=True)


def _untrained_table(data: dict[str, Any]) -> str:
    budgets, rows = budgets_of(data), []
    for name in next(iter(data['untrained'].values()))['methods']:
        points = {budget: untrained(data, name, budget) for budget in budgets}
        shares = ', '.join(f'{found[0]["share"]:.2f}' for found in points.values() if found)
        label = f'{name} (control)' if name in CONTROLS else name
        rows.append([label, shares, *(spread(p['top1'] for p in found) for found in points.values())])
    return table(['method', 'share of multiply-adds', *(f'at {budget}' for budget in budgets)], rows)


def _time_table(data: dict[str, Any], timed: dict[str, Any]) -> str:
    rows, budgets = timed['rows'], budgets_of(data)
    batches = sorted({row['batch_size'] for row in rows})
    names = list(dict.fromkeys(row['network'].rpartition(' ')[0] for row in rows if row['network'] != 'dense'))
    lines = []
    for batch in batches:
        own = {row['network']: row for row in rows if row['batch_size'] == batch}
        dense = own['dense']['seconds']
        lines.append([batch, f'dense, {1000 * dense["median"]:.2f} ms', *['1' for _ in budgets]])
        for name in names:
            ratios = [own.get(f'{name} {budget}', {}).get('ratio') for budget in budgets]
            lines.append([batch, name, *('-' if r is None else f'{r["median"]:.2f}' for r in ratios)])
    return table(['batch', 'network', *(f'at {budget}' for budget in budgets)], lines)


def _recovery_tables(data: dict[str, Any]) -> Iterable[str]:
    names = [name.split(' ') for name in data.get('recovered', {})]
    for method in dict.fromkeys(name[0] for name in names):
        kinds = list(dict.fromkeys(name[1] for name in names if name[0] == method))
        rows = []
        for budget in [1.0, *budgets_of(data)]:
            before = [s['dense'] for s in data['untrained'].values()]
            before = before if budget == 1 else [p['top1'] for p in untrained(data, method, budget)]
            cells = []
            for kind in (k for k in ('elastic', str(budget)) if k in kinds or k == str(budget)):
                by_seed = recovered(data, method, kind, budget)
                cells += [spread(p['top1'] for p in by_seed.values())]
                cells += [spread(won_back(data, method, kind, budget), 0) if budget < 1 else '-']
            lead = spread(elastic_lead(data, method, budget), 2)
            rows.append([budget, spread(before), *(cells if 'elastic' in kinds else ['-', '-', *cells]), lead])
        header = ['budget', 'untrained', 'elastic', 'won back, %', 'separate', 'won back, %', 'elastic minus separate']
        yield f'### {method}\n\n{table(header, rows)}'


def _stvit_table(data: dict[str, Any]) -> str:
    scores: dict[str, list[float]] = {'dense': [s['dense'] for s in data['untrained'].values()]}
    for name, one in data.get('stvit', {}).items():
        scores.setdefault(name.split(' ')[0], []).append(one['top1'])
    names = {'dense': 'the dense network', 'scratch': 'STViT from scratch', 'distilled': 'STViT distilled from it'}
    rows = [[names[kind], len(values), spread(values)] for kind, values in scores.items()]
    return table(['network', 'seeds', 'top-1, %'], rows)


def _limits(data: dict[str, Any]) -> str:
    """Say down to which budget the control that pools by the grid keeps the accuracy, so that nothing is shown."""
    dense = [100 * seed['dense'] for seed in data['untrained'].values()]
    differ = statistics.stdev(dense) if len(dense) > 1 else 0.0
    kept = []
    for budget in budgets_of(data):
        points = untrained(data, 'GridPool', budget)
        if points and statistics.mean(dense) - 100 * statistics.mean(p['top1'] for p in points) <= differ:
            kept.append(budget)
    if not kept:
        return ''
    return (
        f'Down to a budget of {min(kept)} the control GridPool, which merges neighbours without a look at them, loses '
        f'no more than the seeds differ by, {differ:.1f} points: there these images are **no evidence** that one way '
        'of merging is better than another, and there is nothing to win back.'
    )


def write_page(data: dict[str, Any], path: Path) -> None:
    """Write the page and its plots, which go into ``images`` beside it and have its name before theirs."""
    seeds, images = data['untrained'], next(iter(data['untrained'].values()))['images']
    dense = spread(one['dense'] for one in seeds.values())
    parts = [
        f'# Accuracy with fewer tokens: {data["network"]}',
        f'{data["network"]}, the dense network, trained for {data["dense_epochs"]} epochs, has a top-1 of {dense} % on '
        f'{images:,} test images, the mean and the standard deviation of {len(seeds)} seeds. A budget is the share of '
        'the multiply-adds of its layers; what a method reaches of it is beside its name. Written by',
        f'```shell\n{data["command"]} --page FILE.md\n```',
        'with `--teachers` and, of STViT, `--stvit-scratch` for the checkpoints of the seeds.',
        f'## Untrained\n\nTop-1 in %, nothing trained.\n\n{_untrained_table(data)}\n\n{_limits(data)}'.rstrip(),
    ]
    before, after = (path.parent / 'images' / f'{path.stem}_{name}.png' for name in ('untrained', 'recovered'))
    _plot_untrained(data, before)
    parts.append(f'![Top-1 over multiply-adds and time](images/{before.name})')
    for timed in data.get('times', {}).values():
        setting = timed['environment']
        parts.append(
            f'## Time\n\n{setting["device"]}, {setting["dtype"]}, PyTorch {setting["torch"]}: times as fast as the '
            f'dense network in the same rounds, medians.\n\n{_time_table(data, timed)}'
        )
    tables = list(_recovery_tables(data))
    if tables:
        _plot_recovered(data, after)
        low, high = data['elastic']
        parts += [
            f'## Recovered\n\nEpochs: {data["epochs"]}, where the dense network had {data["dense_epochs"]}; learning '
            f'rate: {data["settings"]["lr_factor"]} of its own. Loss: cross entropy, divergence from the dense logits, '
            f'error of tokens. *Elastic*: a budget from {low} to {high} is drawn for each step. *Separate*: a '
            'training for this budget alone. *Won back*: of what the untrained reduction loses, half a point or more. '
            'Differences are in points, of the same seeds. At a budget of 1 nothing is reduced.',
            *tables,
            f'![Top-1 before and after](images/{after.name})',
        ]
    if data.get('stvit'):
        parts.append(f'## STViT\n\n{_stvit_table(data)}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n\n'.join(parts) + '\n', encoding='utf-8')


def _means(points: Iterable[list[dict[str, Any]]], name: str, unit: float = 1) -> list[float]:
    return [unit * statistics.mean(point[name] for point in of_budget) for of_budget in points]


def _plot_untrained(data: dict[str, Any], path: Path) -> None:
    timed = next(iter(data.get('times', {}).values()), None)
    figure, axes = _pyplot().subplots(1, 2 if timed else 1, figsize=(10 if timed else 5.5, 4), layout='constrained')
    axes = list(axes) if timed else [axes]
    dense = statistics.mean(100 * one['dense'] for one in data['untrained'].values())
    for name, mark in zip(next(iter(data['untrained'].values()))['methods'], _MARKS * 2):
        curve = {budget: points for budget in budgets_of(data) if (points := untrained(data, name, budget))}
        style = dict(marker=mark, markersize=4, linewidth=1, label=name, linestyle=':' if name in CONTROLS else '-')
        top1 = [dense, *_means(curve.values(), 'top1', 100)]
        axes[0].plot([1, *_means(curve.values(), 'share')], top1, **style)
        if timed:
            batch = max(row['batch_size'] for row in timed['rows'])
            seconds = {r['network']: r['seconds']['median'] for r in timed['rows'] if r['batch_size'] == batch}
            x = [1000 * seconds[key] for key in ('dense', *(f'{name} {budget}' for budget in curve))]
            axes[1].plot(x, top1, **style)
            axes[1].set(xlabel=f'ms for a batch of {batch}, {timed["environment"]["device"]}')
    axes[0].set(xlabel='share of multiply-adds', ylabel='top-1 in %')
    axes[0].legend(frameon=False, fontsize=7)
    if timed:
        _enlarge(axes[1], dense)
    _save(figure, path)


def _enlarge(axes: Any, top1: float) -> None:
    """Draw what is near the dense network's top-1, where methods lie on each other, larger in a corner."""
    inset = axes.inset_axes((0.42, 0.08, 0.56, 0.55))
    for line in axes.get_lines():
        style = dict(color=line.get_color(), linestyle=line.get_linestyle(), marker=line.get_marker())
        inset.plot(line.get_xdata(), line.get_ydata(), markersize=3, linewidth=0.8, **style)
    inset.set(xlim=axes.get_xlim(), ylim=(top1 - 1, top1 + 0.3))
    inset.tick_params(labelsize=6)


def _plot_recovered(data: dict[str, Any], path: Path) -> None:
    figure, axes = _pyplot().subplots(figsize=(5.5, 4), layout='constrained')
    methods = list(dict.fromkeys(name.split(' ')[0] for name in data['recovered']))
    for method, colour in zip(methods, ('#1b7f79', '#d98c5f', '#4c78a8', '#8a8a8a')):
        for kind, line, label in (('elastic', '-', 'one elastic checkpoint'), (None, '', 'recovered at each budget')):
            curve = {b: list(recovered(data, method, kind or str(b), b).values()) for b in [1.0, *budgets_of(data)]}
            curve = {budget: points for budget, points in curve.items() if points}
            style = dict(color=colour, linestyle=line, marker='o' if kind else 'x', label=f'{method}, {label}')
            axes.plot(_means(curve.values(), 'share'), _means(curve.values(), 'top1', 100), markersize=5, **style)
        before = [untrained(data, method, budget) for budget in budgets_of(data)]
        style = dict(color=colour, linestyle=':', marker='o', markersize=4, label=f'{method}, untrained')
        axes.plot(_means(before, 'share'), _means(before, 'top1', 100), **style)
    axes.axhline(statistics.mean(100 * s['dense'] for s in data['untrained'].values()), color='#8a8a8a', linewidth=1)
    axes.set(xlabel='share of multiply-adds', ylabel='top-1 in %')
    axes.legend(frameon=False, fontsize=7)
    _save(figure, path)
