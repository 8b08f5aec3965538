"""The plots of the evidence: accuracy and cost of the pairs, and the token-budget study."""

from pathlib import Path
from typing import Any

from .claims import Score, score
from .measure import cost_of, speed_of
from .plan import PAIRS, SEEDS, STUDY, Factor, Run

SEMANTIC, DENSE = '#1b7f79', '#8a8a8a'
DPI = 90


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use('agg')  # pictures go into files, with or without a screen
    import matplotlib.pyplot as plt

    plt.rcParams.update({'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False})
    return plt


def plot_pairs(evidence: dict[str, Any], path: Path) -> bool:
    """Accuracy by seed of each pair, multiply-adds and speed, all relative to the dense baseline.

    Returns:
        Whether there was anything to draw.
    """
    rows = [(pair, config, metric) for pair in PAIRS for metric in pair.metrics for config in pair.configs]
    scores = [score(evidence, Run(config, 0), metric[0], metric[2]) for _, config, metric in rows]
    if not any(scores):
        return False
    plt = _pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.6, 0.6 + 0.3 * len(rows)), layout='constrained', sharey=True, width_ratios=(3, 2)
    )
    labels = []
    for y, ((pair, config, metric), found) in enumerate(zip(rows, scores)):
        colour = DENSE if config == pair.dense else SEMANTIC
        mean = f'{found.mean:.1f}' if found else 'not run'
        labels.append(f'{config.removesuffix("_digits")}, {metric[1]} {mean}')
        baseline = score(evidence, Run(pair.dense, 0), metric[0], metric[2])
        if found and baseline:
            points = [value - baseline.mean for value in found.values]
            left.plot(points, [y] * len(points), 'o', color=colour, alpha=0.6, markersize=5)
            left.plot(found.mean - baseline.mean, y, '|', color=colour, markersize=14, markeredgewidth=2)
        if config != pair.dense:
            _relative(right, evidence, pair, config, y)
    left.set_yticks(range(len(rows)), labels)
    left.invert_yaxis()
    left.set(xlabel=f"points above the dense baseline's mean: {len(SEEDS)} seeds and their mean")
    left.axvline(0, color=DENSE, linewidth=1)
    right.set(xlabel="times the dense baseline's")
    right.axvline(1, color=DENSE, linewidth=1)
    right.tick_params(left=False)
    right.set_xlim(left=0)
    handles, names = right.get_legend_handles_labels()
    if handles:
        unique = dict(zip(names, handles))
        right.legend(
            unique.values(), unique.keys(), frameon=False, ncols=2, loc='lower center', bbox_to_anchor=(0.5, 1)
        )
    for axes in (left, right):
        axes.grid(axis='x', alpha=0.3)
        for y in _borders(rows):
            axes.axhline(y, color='#dddddd', linewidth=0.8)
    _save(figure, path)
    return True


def _borders(rows: list) -> list[float]:
    """Between the groups of rows that belong together."""
    groups = [(pair.dense, metric[0]) for pair, _, metric in rows]
    return [i + 0.5 for i, (a, b) in enumerate(zip(groups, groups[1:])) if a != b]


def _relative(axes: Any, evidence: dict, pair: Any, config: str, y: int) -> None:
    cost, base = cost_of(evidence['measured'], config), cost_of(evidence['measured'], pair.dense)
    if cost and base:
        part = 'backbone' if 'rcnn' in config else 'multiply_adds'
        axes.barh(y - 0.18, cost[part] / base[part], 0.34, color='#d98c5f', label='multiply-adds')
    speed = speed_of(evidence['measured'], pair.dense, config)
    if speed:
        axes.barh(y + 0.18, speed['ratio']['median'], 0.34, color='#4c78a8', label='speed')


def plot_study(evidence: dict[str, Any], path: Path) -> bool:
    """Top-1 over the number of tokens, over the place of the STGM, and for the switches.

    Returns:
        Whether there was anything to draw.
    """
    tokens, layer, *switches = STUDY
    if not any(trial_score(evidence, factor, label) for factor in STUDY for label, _ in factor.values):
        return False
    plt = _pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout='constrained', sharey=True, width_ratios=(3, 3, 4))
    for panel, factor in zip(axes, (tokens, layer)):
        _curve(panel, evidence, factor)
    axes[0].set(
        ylabel='held-out top-1 in %, axis cut', xscale='log', xticks=[], xlabel='semantic tokens (of 64 image tokens)'
    )
    axes[0].set_xticks([int(label) for label, _ in tokens.values], [label for label, _ in tokens.values])
    axes[0].minorticks_off()
    axes[1].set(xlabel='layers before the STGM (of 6)', xticks=[int(label) for label, _ in layer.values])
    _bars(axes[2], evidence, switches)
    low = min(min(panel.dataLim.y0 for panel in axes[:2]), axes[2].least)
    axes[0].set_ylim(low - max(0.3, 0.15 * (100 - low)), 100.1)
    for panel in axes:
        panel.grid(axis='y', alpha=0.3)
    _save(figure, path)
    return True


def trial_score(evidence: dict[str, Any], factor: Factor, label: str) -> Score | None:
    """Top-1 of a trial over the seeds that are there."""
    return score(evidence, Run(factor.config, 0, factor.options(label)), 'accuracy/top1', 1.0)


def _curve(panel: Any, evidence: dict, factor: Factor) -> None:
    points = [(int(label), label, trial_score(evidence, factor, label)) for label, _ in factor.values]
    points = [(x, label, found) for x, label, found in points if found]
    base = trial_score(evidence, factor, factor.default)
    if base:
        panel.axhspan(min(base.values), max(base.values), color=SEMANTIC, alpha=0.12, linewidth=0)
    panel.plot([x for x, _, _ in points], [found.mean for _, _, found in points], color=SEMANTIC, linewidth=1)
    for x, label, found in points:
        filled = SEMANTIC if label == factor.default else 'white'
        panel.plot([x] * len(found.values), found.values, 'o', color=SEMANTIC, markersize=4, alpha=0.5)
        panel.plot(x, found.mean, 'o', color=SEMANTIC, markerfacecolor=filled, markersize=7)
        cost = cost_of(evidence['measured'], factor.config, factor.options(label))
        if cost:
            text = f'{cost["multiply_adds"] / 1e6:.1f} M'
            panel.annotate(text, (x, min(found.values)), (0, -14), textcoords='offset points', ha='center', fontsize=8)
    panel.margins(x=0.12)


def _bars(panel: Any, evidence: dict, factors: list[Factor]) -> None:
    x, ticks, panel.least = 0.0, [], 100.0
    for factor in factors:
        start = x
        for label, _ in factor.values:
            found = trial_score(evidence, factor, label)
            if found:
                colour = SEMANTIC if label == factor.default else '#a8d5d1'
                panel.bar(x, found.mean, 0.8, color=colour)
                panel.plot([x] * len(found.values), found.values, 'o', color='#333333', markersize=3)
                panel.least = min(panel.least, *found.values)
            ticks.append((x, label))
            x += 1
        title = f'{factor.title}\n({factor.config.removesuffix("_digits")})'
        panel.text((start + x - 1) / 2, -0.17, title, transform=panel.get_xaxis_transform(), ha='center', va='top')
        x += 0.6
    panel.set_xticks([tick for tick, _ in ticks], [label for _, label in ticks])
    panel.set_xlabel('\n\n')


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and version that matplotlib would write, the same numbers give the same file.
    figure.savefig(path, dpi=DPI, metadata={'Software': None})
    import matplotlib.pyplot as plt

    plt.close(figure)
