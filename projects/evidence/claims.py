"""The claims of the papers, judged by rules on the numbers of the evidence and by nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

from mmstvit.measure.timing import Spread

from .judge import Difference, compare_images, compare_scores, is_saturated
from .measure import PUBLISHED, speed_of
from .plan import MOST_SEEDS, PAIRS, SEEDS, Pair, Run
from .store import unpack_right

HELD, NOT_HELD, UNDECIDED = 'held here', 'not held here', 'undecided here'
NO_EVIDENCE, NOT_TESTABLE = 'no evidence here', 'not testable here'
KINDS = (HELD, NOT_HELD, UNDECIDED, NO_EVIDENCE, NOT_TESTABLE)

Evidence = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One row of the table of claims."""

    paper: str
    claim: str
    finding: str
    verdict: str


def results_of(evidence: Evidence, run: Run, seeds: Sequence[int] = range(MOST_SEEDS)) -> list[dict]:
    """The results of a config with its options, whichever seeds are there."""
    rows = {row['name']: row for row in evidence['runs']}
    names = [replace(run, seed=seed).name for seed in seeds]
    return [rows[name] for name in names if name in rows]


def twin_results(
    evidence: Evidence, own: Run, dense: Run, seeds: Sequence[int] = range(MOST_SEEDS)
) -> tuple[list[dict], list[dict]]:
    """The results of two networks, of the seeds that both have."""
    ours, theirs = results_of(evidence, own, seeds), results_of(evidence, dense, seeds)
    common = {row['seed'] for row in ours} & {row['seed'] for row in theirs}
    return [row for row in ours if row['seed'] in common], [row for row in theirs if row['seed'] in common]


def scores(results: Sequence[dict], metric: tuple[str, str, float]) -> list[float]:
    """A metric, see :class:`.Pair`, of results, in per cent."""
    key, _, scale = metric
    return [scale * row['metrics'][key] for row in results if key in row['metrics']]


def compare(
    evidence: Evidence, own: Run, dense: Run, metric: tuple[str, str, float], only: Sequence[int] | None = None
) -> Difference | None:
    """Two networks, by their answers to each image where both have kept them.

    ``None`` where they have fewer seeds in common than ``SEEDS``, and of one seed without answers.

    Args:
        evidence: with their results.
        own, dense: any seed of them.
        metric: of both, see :class:`.Pair`.
        only: the seeds that are compared, in the place of all that they have in common.
    """
    twins = twin_results(evidence, own, dense, only or range(MOST_SEEDS))
    if len(twins[0]) < len(only or SEEDS):
        return None
    packed = [[row.get('right') for row in rows] for rows in twins]
    if metric[1] == 'top-1' and all(packed[0] + packed[1]):
        return compare_images(*([unpack_right(text) for text in rows] for rows in packed))
    return compare_scores(*(scores(rows, metric) for rows in twins)) if len(twins[0]) > 1 else None


def saturated(evidence: Evidence, pair: Pair) -> bool:
    """Whether a task that counts right answers is no evidence, see :func:`.is_saturated`; when all seeds are there."""
    metric = pair.metrics[0]
    by_network = [scores(results_of(evidence, run), metric) for run in pair.twins]
    if metric[1] != 'top-1' or not all(len(values) >= len(SEEDS) for values in by_network):
        return False
    return is_saturated(by_network, pair.samples)


# Exact at the borders, in spite of what floats do to sums.
def _round(value: float) -> float:
    return round(value, 6)


def judge_same(gap: Difference) -> str:
    """Whether accuracy is kept."""
    return {'kept': HELD, 'higher': HELD, 'lower': NOT_HELD}.get(gap.kind, UNDECIDED)


def judge_up(gap: Difference) -> str:
    """Whether it goes up."""
    return HELD if gap.kind == 'higher' else NOT_HELD if gap.high <= 0 else UNDECIDED


def judge_share(ranges: Sequence[tuple[float, float]], least: float, strictly: bool) -> str:
    """Whether each size reaches what is claimed of all: shares saved, or speeds over those of the baselines.

    Args:
        ranges: of each size the lowest and the highest value that it may have.
        least: what is claimed.
        strictly: whether more than that is.
    """
    reach = [[_round(v) > least if strictly else _round(v) >= least for v in ends] for ends in ranges]
    if all(low for low, _ in reach):
        return HELD
    return UNDECIDED if all(high for _, high in reach) else NOT_HELD


def agrees(counted: float, published: str) -> bool:
    """Whether a count is within 2 % of a published number, or within half a unit of its last digit."""
    decimals = len(published.partition('.')[2])
    tolerance = max(0.02 * float(published), 0.5 * 10**-decimals)
    return _round(abs(counted - float(published))) <= _round(tolerance)


def _accuracy(paper: str, claim: str, judge: Callable[[Difference], str], *twins: tuple[str, str], metric: int = 0):
    """Two trained networks: of the twins named, best first, those whose seeds are all there."""

    def verdict(evidence: Evidence) -> Verdict:
        for names in twins:
            pair = next(pair for pair in PAIRS if names[0] in pair.configs)
            own, dense = (Run(name, 0) for name in names)
            gap = compare(evidence, own, dense, pair.metrics[metric])
            if gap is None:
                continue
            means = [fmean(scores(rows, pair.metrics[metric])) for rows in twin_results(evidence, own, dense)]
            text = (
                f'{pair.metrics[metric][1]} {means[0]:.1f} against {means[1]:.1f}, {gap.points:+.2f} points '
                f'({interval(gap)}) on {pair.what} ({names[0]}, {names[1]})'
            )
            return Verdict(paper, claim, text, NO_EVIDENCE if saturated(evidence, pair) else judge(gap))
        return Verdict(paper, claim, f'not all {len(SEEDS)} seeds of both have been run', NOT_TESTABLE)

    return verdict


def interval(gap: Difference) -> str:
    """Its two ends, in points."""
    return f'{gap.low:+.2f} to {gap.high:+.2f}'


def _of_sizes(figure: Callable, paper: str, claim: str, family: str, sizes: str, *border: Any):
    """A figure of the networks of full size.

    Args:
        figure: from all measurements and a network's name the two ends of a range and its text.
        paper, claim: in words.
        family, sizes: of the networks, by letters.
        border: as of :func:`judge_share`.
    """

    def verdict(evidence: Evidence) -> Verdict:
        by_size = {size: figure(evidence['measured'], f'{family}-{size}') for size in sizes}
        if None in by_size.values():
            return Verdict(paper, claim, 'not all sizes have been measured', NOT_TESTABLE)
        text = ', '.join(f'{size} {found[-1]}' for size, found in by_size.items())
        return Verdict(paper, claim, text, judge_share([found[:2] for found in by_size.values()], *border))

    return verdict


def share_saved(measured: dict[str, dict], name: str) -> float | None:
    """Of the multiply-adds of a backbone of full size, what semantic tokens save."""
    row = measured.get(f'full_{name}')
    return row and 1 - row['semantic'] / row['dense']


def speed_ratio(measured: dict[str, dict], key: str, network: str = '') -> Spread | None:
    """How many times as fast as its dense baseline a network is.

    Args:
        measured: all measurements.
        key: of those that were timed side by side: a network of full size, or the dense baseline.
        network: where it is another than ``key``.
    """
    row = speed_of(measured, key, network or key)
    return Spread(**row['ratio']) if row else None


def _saved(measured: dict[str, dict], name: str) -> tuple[float, float, str] | None:
    share = share_saved(measured, name)
    return None if share is None else (share, share, f'{100 * share:.1f} %')


def _times_as_fast(measured: dict[str, dict], name: str) -> tuple[float, float, str] | None:
    ratio = speed_ratio(measured, name)
    return None if ratio is None else (ratio.low, ratio.high, f'{ratio:.2f}')


_fewer, _faster = partial(_of_sizes, _saved), partial(_of_sizes, _times_as_fast)

STVIT, STVIT_R, T2T = 'STViT', 'STViT-R', 'T2T-ViT'
_FIGURES = {
    'STViT-R-Swin-S': ('49.626', '5.826'),
    'STViT-R-Swin-B': ('87.812', '10.264'),
    'T2T-ViT-7': ('4.3', '1.1'),
    'T2T-ViT-10': ('5.9', '1.5'),
    'T2T-ViT-12': ('6.9', '1.8'),
    'T2T-ViT-14': ('21.5', '4.8'),
    'T2T-ViT-19': ('39.1', '8.5'),
    'T2T-ViT-24': ('64.1', '13.8'),
}
assert _FIGURES.keys() == PUBLISHED.keys()


def counts_beside_published(evidence: Evidence) -> list[str]:
    """Parameters and multiply-adds of our networks beside those that their authors publish, a text for each."""
    texts = []
    for name, published in _FIGURES.items():
        if row := evidence['measured'].get(f'published_{name}'):
            counted = row['parameters'] / 1e6, row['multiply_adds'] / 1e9
            same = all(map(agrees, counted, published))
            told = 'as published' if same else f'published {published[0]} M, {published[1]} G'
            texts.append(f'{name} {counted[0]:.1f} M, {counted[1]:.2f} G, {told}')
    return texts


_DETECTORS = ('mask-rcnn_stvit-r_digits', 'mask-rcnn_swin_digits')
CLAIMS: tuple[Callable[[Evidence], Verdict], ...] = (
    _accuracy(
        STVIT,
        'DeiT with 16 semantic tokens keeps its accuracy',
        judge_same,
        ('stvit-s_cifar10', 'deit-s_cifar10'),
        ('stvit-t_cifar10', 'deit-t_cifar10'),
        ('stvit-tiny_cifar10', 'vit-tiny_cifar10'),
        ('stvit-tiny_digits', 'vit-tiny_digits'),
    ),
    _fewer(STVIT, 'DeiT-T/S/B with 16 semantic tokens: nearly 60 % fewer FLOPs', 'STViT', 'TSB', 0.55, False),
    _faster(STVIT, 'DeiT-T/S/B with 16 semantic tokens: inference more than 100 % faster', 'STViT', 'TSB', 2.0, True),
    _accuracy(
        STVIT,
        'Swin with semantic tokens: accuracy slightly up',
        judge_up,
        ('stvit-swin_cifar10', 'swin_cifar10'),
        ('stvit-swin_digits', 'swin_digits'),
    ),
    _faster(STVIT, 'Swin-T/S/B with 16 semantic tokens a window: about 20 % faster', 'STViTSwin', 'TSB', 1.15, False),
    _accuracy(
        STVIT_R,
        'competitive detection',
        judge_same,
        ('faster-rcnn_stvit-r_bccd', 'faster-rcnn_swin_bccd'),
        _DETECTORS,
    ),
    _accuracy(STVIT_R, 'competitive instance segmentation', judge_same, _DETECTORS, metric=1),
    _fewer(STVIT_R, 'backbone FLOPs of detectors down by over 30 %', 'STViT-R', 'SB', 0.30, True),
    _accuracy(
        T2T,
        'trained from scratch, better than ViT',
        judge_up,
        ('t2t-vit_cifar10', 'vit-patch_cifar10'),
        ('t2t-vit_digits', 'vit-tiny_digits'),
    ),
)


def verdicts(evidence: Evidence) -> list[Verdict]:
    """All claims, judged."""
    return [claim(evidence) for claim in CLAIMS]
