"""The page of the evidence, made from the results and figures alone."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from mmstvit.console import readable

from .claims import HELD, NOT_HELD, NOT_TESTABLE, RULES, Score, Verdict, score, verdicts
from .measure import cost_of, speed_of
from .plan import PAIRS, SEEDS, STUDY, Pair, Run
from .plots import trial_score
from .runs import duration

PAIRS_PLOT, STUDY_PLOT = 'evidence_pairs.png', 'evidence_study.png'
_MARKS = {HELD: '**held here**', NOT_HELD: '**not held here**', NOT_TESTABLE: 'not testable here'}
_NONE = '-'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = ['| ' + ' | '.join(heads) + ' |', '|' + '---|' * len(heads)]
    return [*lines, *('| ' + ' | '.join(row) + ' |' for row in rows), '']


def score_cell(found: Score | None) -> str:
    """Mean, spread and all values."""
    if found is None:
        return 'not run'
    values = ', '.join(f'{value:.1f}' for value in found.values)
    if len(found.values) == 1:
        return f'{values} (one seed)'
    missing = '' if found.whole else f', {len(found.values)} of {len(SEEDS)} seeds'
    return f'{found.mean:.1f} ± {found.spread:.1f} ({values}{missing})'


def render(evidence: dict[str, Any], pictures: Sequence[str]) -> str:
    """The page.

    Args:
        evidence: ``runs``: results; ``measured``: figures by name.
        pictures: file names of the plots that there are, in ``images/`` beside the page.
    """
    judged = verdicts(evidence)
    lines = [
        '# Evidence',
        '',
        '<!-- Written by the program from evidence.json: `make evidence EVIDENCE_ARGS=--page-only`. Do not edit. -->',
        '',
        *_summary(evidence, judged),
        *_pairs(evidence, pictures),
        *_claims(judged),
        *_study(evidence, pictures),
        *_limits(),
        *_sources(evidence),
    ]
    return '\n'.join(lines).rstrip() + '\n'


def _summary(evidence: dict, judged: Sequence[Verdict]) -> list[str]:
    counts = Counter(v.verdict for v in judged)
    missing = [v for v in judged if v.verdict == NOT_TESTABLE]
    refused = [v.claim for v in judged if v.verdict == NOT_HELD]
    seconds = sum(run['seconds'] for run in evidence['runs'])
    lines = [
        f'Each network on semantic tokens is trained beside its dense baseline, with the same data, schedule and '
        f'seeds: {len(evidence["runs"])} trainings, {duration(seconds)} in all. Of {len(judged)} claims of the papers '
        f'{counts[HELD]} held here, {counts[NOT_HELD]} did not, and {len(missing)} cannot be tested here.',
        '',
    ]
    if refused:
        lines += ['Not held here:', '', *(f'- {claim}' for claim in refused), '']
    return [
        *lines,
        '**Digits are a small task.** All accuracies are of small networks on small scans of handwritten digits, or '
        'scenes and clips made of them. They show that the networks train and how pairs compare on this task, and they '
        'say nothing about ImageNet, COCO or Kinetics. Multiply-adds and speeds of full-size networks need no training '
        'and are measured on them.',
        '',
    ]


def _pairs(evidence: dict, pictures: Sequence[str]) -> list[str]:
    lines = ['## Pairs', '']
    if PAIRS_PLOT in pictures:
        lines += [
            f'![Accuracy by seed, multiply-adds and speed, relative to the dense baseline](images/{PAIRS_PLOT})',
            '',
        ]
    for pair in PAIRS:
        lines += [f'### {pair.title}', '', f'Tested on {pair.data}.', '', *_pair_table(evidence, pair)]
    return [*lines, *_how_timed(evidence)]


def _pair_table(evidence: dict, pair: Pair) -> list[str]:
    detector = 'mask-rcnn' in pair.dense
    of = ' of the backbone' if detector else ''
    heads = ['config', *(name for _, name, _ in pair.metrics), f'multiply-adds{of}', f'{pair.unit} a second{of}']
    rows = []
    for config in pair.configs:
        cost, speed = cost_of(evidence['measured'], config), speed_of(evidence['measured'], pair.dense, config)
        base = cost_of(evidence['measured'], pair.dense)
        cells = [score_cell(score(evidence, Run(config, 0), key, scale)) for key, _, scale in pair.metrics]
        part = 'backbone' if detector else 'multiply_adds'
        share = f' ({cost[part] / base[part]:.2f} x)' if cost and base and config != pair.dense else ''
        cells.append(f'{readable(cost[part])}{share}' if cost else _NONE)
        cells += _speed_cells(speed)
        cells.append(_training_memory(evidence, config))
        rows.append([f'[{config}](../configs/digits/{config}.py)', *cells])
    return table([*heads, 'times the baseline', 'memory', 'training memory'], rows)


def _speed_cells(speed: dict | None) -> list[str]:
    """Images a second, the ratio to the baseline with its quartiles, and memory."""
    if not speed:
        return [_NONE] * 3
    ratio = speed['ratio']
    return [
        f'{speed["images_per_second"]["median"]:.1f}',
        f'{ratio["median"]:.2f} ({ratio["low"]:.2f} - {ratio["high"]:.2f})',
        f'{speed["peak_memory"] / 2**20:.1f} MiB',
    ]


def _of_config(evidence: dict, config: str) -> list[dict]:
    names = [Run(config, seed).name for seed in SEEDS]
    return [run for run in evidence['runs'] if run['name'] in names]


def _training_memory(evidence: dict, config: str) -> str:
    peaks = [run['memory'] for run in _of_config(evidence, config)]
    return f'{max(peaks) / 2**20:.0f} MiB' if peaks else _NONE


def _how_timed(evidence: dict) -> list[str]:
    timed = [evidence['measured'].get(f'speed_{pair.dense}') for pair in PAIRS]
    where = [entry['environment'] for entry in timed if entry]
    lines = [
        f'Accuracies in per cent: mean over the seeds {", ".join(map(str, SEEDS))} ± half the range (all values). '
        'Multiply-adds of one input.'
    ]
    if where:
        first, batch = where[0], next(entry for entry in timed if entry)['results'][0]['batch_size']
        threads = f', {first["threads"]} threads' if first.get('threads') else ''
        lines.append(
            f'Speed is of inference at batch {batch} in {first["dtype"]} on {first["device"]}{threads}: pairs run in '
            f'turn, {first["rounds"]} rounds, median (and quartiles of the ratio). Memory is that of weights and of '
            'tensors in such a run.'
        )
    lines.append('Training memory is the peak of the whole process. Commands and commits are [below](#commands).')
    return [' '.join(lines), '']


def _claims(judged: Sequence[Verdict]) -> list[str]:
    numbers = {rule: str(i) for i, rule in enumerate(RULES, 1)}
    rows = [(v.paper, v.claim, v.found, _MARKS[v.verdict], numbers[v.rule]) for v in judged]
    return [
        '## What the papers claim',
        '',
        'Papers: [STViT and STViT-R](https://arxiv.org/abs/2303.08685), [T2T-ViT](https://arxiv.org/abs/2101.11986). '
        'The claims of STViT are those of its abstract; figures are as published by the authors. Each is judged by the '
        'numbered rule below the table, by the program.',
        '',
        *table(['paper', 'claim', 'measured here', 'verdict', 'rule'], rows),
        *(f'{numbers[rule]}. {text}' for rule, text in RULES.items()),
        '',
    ]


def _study(evidence: dict, pictures: Sequence[str]) -> list[str]:
    lines = [
        '## How many tokens, and where',
        '',
        'One setting at a time is changed, from the config as it is; its own value is marked. Seeds: those shown. What '
        "differs by less than the config's own seeds do (shaded) is no result.",
        '',
    ]
    if STUDY_PLOT in pictures:
        lines += [f'![Top-1 over tokens, place of the STGM, and switches](images/{STUDY_PLOT})', '']
    rows = []
    for factor in STUDY:
        for label, _ in factor.values:
            cost = cost_of(evidence['measured'], factor.config, factor.options(label))
            own = ' (own)' if label == factor.default else ''
            found = score_cell(trial_score(evidence, factor, label))
            rows.append(
                (factor.title, label + own, factor.config, found, readable(cost['multiply_adds']) if cost else _NONE)
            )
    return [*lines, *table(['setting', 'value', 'config', 'top-1', 'multiply-adds'], rows)]


def _limits() -> list[str]:
    return [
        '## What this page cannot show',
        '',
        '- Accuracy on natural images, detection on COCO, actions on Kinetics: no such data is in it.',
        '- Small differences: one held-out image of 450 is 0.2 points, and three seeds say little. By rule 1 two equal '
        'networks would fail one time in nine (if seeds scatter normally), and a slightly worse one passes.',
        '- Whether the schedules suit both of a pair equally well: one schedule each was tried.',
        '- Speed elsewhere: on a GPU, at other batch sizes or in lower precision ratios differ; '
        '`tools/analysis_tools/benchmark.py` measures them.',
        '',
    ]


def _sources(evidence: dict) -> list[str]:
    """The command and commit of each row, and what they ran with."""
    lines = [
        '## Commands',
        '',
        '`make evidence` repeats all of it; by hand, from the checkout (a `+` after a commit: files differed from it):',
        '',
    ]
    groups: dict[str, list[dict]] = {}
    for run in evidence['runs']:
        groups.setdefault(Run(run['config'].split('/')[-1].removesuffix('.py'), 0, run['options']).trial, []).append(
            run
        )
    rows = []
    for trial, runs in groups.items():
        seeds = ', '.join(str(run['seed']) for run in runs)
        taken = duration(sum(run['seconds'] for run in runs) / len(runs))
        commits = ', '.join(dict.fromkeys(run['commit'] for run in runs))
        rows.append((trial, f'`{runs[0]["command"]}`', seeds, taken, commits))
    lines += table(['row', 'command (of its first seed)', 'seeds', 'time of each', 'commit'], rows)
    settings = Counter(
        f'{run["cpu"]}, {run["jobs"]} at a time with {run["threads"]} thread{"s" * (run["threads"] > 1)} each; '
        + ', '.join(f'{name} {number}' for name, number in run['versions'].items())
        for run in evidence['runs']
    )
    return [*lines, *(f'{number} trainings: {text}.\n' for text, number in settings.most_common())]
