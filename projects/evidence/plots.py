"""The plots of the evidence: differences to the dense baselines, and the cost of networks of full size."""

from pathlib import Path
from typing import Any

from .claims import compare, saturated, scores, share_saved, speed_ratio, twin_results
from .judge import KEPT_WITHIN
from .measure import FULL_SIZE
from .plan import PAIRS

SEMANTIC, DENSE, SPEED = '#1b7f79', '#8a8a8a', '#4c78a8'
DPI = 90


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use('agg')  # pictures go into files, with or without a screen
    import matplotlib.pyplot as plt

    plt.rcParams.update({'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False})
    return plt


def plot_differences(evidence: dict[str, Any], path: Path) -> bool:
    """Points above the dense baseline: each seed, their mean and its interval; grey where the task is no evidence.

    Returns:
        Whether there was anything to draw.
    """
    rows = [(pair, run, metric) for pair in PAIRS for metric in pair.metrics for run in pair.twins[:-1]]
    gaps = [compare(evidence, run, pair.baseline, metric) for pair, run, metric in rows]
    shown = [(*row, gap) for row, gap in zip(rows, gaps) if gap]
    if not shown:
        return False
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(8.4, 1 + 0.32 * len(shown)), layout='constrained')
    for y, (pair, run, metric, gap) in enumerate(shown):
        colour = DENSE if saturated(evidence, pair) else SEMANTIC
        own, dense = (scores(rows, metric) for rows in twin_results(evidence, run, pair.baseline))
        axes.plot([gap.low, gap.high], [y, y], color=colour, linewidth=2)
        axes.plot([a - b for a, b in zip(own, dense)], [y] * len(own), 'o', color=colour, alpha=0.5, markersize=4)
        axes.plot(gap.points, y, '|', color=colour, markersize=13, markeredgewidth=2.5)
    labels = [f'{run.trial}, {metric[1]}' + ' (saturated)' * saturated(evidence, p) for p, run, metric, _ in shown]
    axes.set_yticks(range(len(shown)), labels)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.axvline(0, color='#333333', linewidth=1)
    axes.axvline(-KEPT_WITHIN, color='#333333', linewidth=1, linestyle=':')
    axes.set_xlabel(f'points above the dense baseline (dotted: {KEPT_WITHIN} lost); seeds, mean, 95 % interval')
    axes.grid(axis='x', alpha=0.3)
    _save(figure, path)
    return True


def plot_costs(evidence: dict[str, Any], path: Path) -> bool:
    """Multiply-adds and speed of the networks of full size, relative to the dense baseline.

    Returns:
        Whether there was anything to draw.
    """
    names = [full.name for full in FULL_SIZE]
    saved = [share_saved(evidence['measured'], name) for name in names]
    ratios = [speed and speed.median for speed in (speed_ratio(evidence['measured'], name) for name in names)]
    if not any(saved):
        return False
    plt = _pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.2), layout='constrained', sharey=True)
    columns = (
        ([share and 1 - share for share in saved], SEMANTIC, "multiply-adds, times the dense baseline's"),
        (ratios, SPEED, "speed, times the dense baseline's"),
    )
    for panel, (values, colour, title) in zip(panels, columns):
        for y, value in enumerate(values):
            if value:
                panel.barh(y, value, 0.7, color=colour)
            panel.annotate(f'{value:.2f}' if value else 'not timed', (value or 0, y), (3, 0), **_BESIDE)
        panel.axvline(1, color=DENSE, linewidth=1)
        panel.set_xlabel(title)
        panel.margins(x=0.14)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    _save(figure, path)
    return True


_BESIDE = dict(textcoords='offset points', va='center', fontsize=8)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and version that matplotlib would write, the same numbers give the same file.
    figure.savefig(path, dpi=DPI, metadata={'Software': None}, pil_kwargs={'optimize': True})
    import matplotlib.pyplot as plt

    plt.close(figure)
