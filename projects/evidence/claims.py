"""The claims of the papers, judged by rules on the numbers of the evidence and by nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .measure import PUBLISHED, speed_of
from .plan import PAIRS, SEEDS, Pair, Run

HELD, NOT_HELD, NOT_TESTABLE = 'held here', 'not held here', 'not testable here'

RULES = {
    'same': 'Accuracy kept: the mean over the seeds is not below that of the dense baseline by more than the spread. '
    'The spread is half the range over the seeds, of the two networks the larger.',
    'up': 'Accuracy up: the mean is above that of the baseline by more than the spread. Where the baseline leaves no '
    'such room below 100 %, it cannot be tested.',
    'fewer': 'Fewer multiply-adds: counted on the networks of full size without training them. "Nearly 60 %" is at '
    'least 55 %, "over 30 %" more than 30 %; every size must reach it.',
    'faster': 'Faster: images a second over those of the dense baseline, both untrained and of full size, run in turn '
    'on one machine. "More than 100 %" is more than 2 times, "about 20 %" at least 1.15 times; every size must '
    'reach it.',
    'figure': 'A published size: our count of parameters and of multiply-adds is within 2 % of it, or within half a '
    'unit of its last digit. (The authors of STViT-R project keys and values of every copy of a token in overlapping '
    'windows; here each token is projected once, which gives the same outputs for fewer multiply-adds.)',
    'data': 'What needs data that is not to be had here cannot be tested.',
}


@dataclass(frozen=True)
class Score:
    """A metric of one config over the seeds, in per cent.

    Attributes:
        values: by seed, in the order of ``SEEDS``.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """Half the range."""
        return (max(self.values) - min(self.values)) / 2

    @property
    def whole(self) -> bool:
        """Whether every seed is there."""
        return len(self.values) == len(SEEDS)


@dataclass(frozen=True)
class Verdict:
    """One row of the table of claims."""

    paper: str
    claim: str
    found: str
    verdict: str
    rule: str


def score(evidence: dict[str, Any], run: Run, metric: str, scale: float) -> Score | None:
    """A metric of a config (with the options of ``run``, any seed) over the seeds that are there."""
    rows = {row['name']: row for row in evidence['runs']}
    names = [Run(run.config, seed, run.options).name for seed in SEEDS]
    values = tuple(
        scale * rows[name]['metrics'][metric] for name in names if metric in rows.get(name, {}).get('metrics', ())
    )
    return Score(values) if values else None


def pair_of(config: str) -> Pair:
    """The pair that a semantic config belongs to."""
    return next(pair for pair in PAIRS if config in pair.configs)


# Exact at the borders, in spite of what floats do to sums.
def _round(value: float) -> float:
    return round(value, 6)


def judge_same(own: Score, dense: Score) -> str:
    """Rule ``same``."""
    return HELD if _round(own.mean - dense.mean) >= -_round(max(own.spread, dense.spread)) else NOT_HELD


def judge_up(own: Score, dense: Score) -> str:
    """Rule ``up``."""
    margin = max(own.spread, dense.spread)
    if _round(dense.mean + margin) >= 100:
        return NOT_TESTABLE
    return HELD if _round(own.mean - dense.mean) > _round(margin) else NOT_HELD


def judge_fewer(shares: Sequence[float], least: float, strictly: bool) -> str:
    """Rule ``fewer``, of shares saved in [0, 1]."""
    return HELD if all(_round(s) > least if strictly else _round(s) >= least for s in shares) else NOT_HELD


def judge_faster(ratios: Sequence[float], least: float, strictly: bool) -> str:
    """Rule ``faster``, of speeds relative to the baselines."""
    return HELD if all(_round(r) > least if strictly else _round(r) >= least for r in ratios) else NOT_HELD


def agrees(counted: float, published: str) -> bool:
    """Rule ``figure``, for one number as it is published."""
    decimals = len(published.partition('.')[2])
    tolerance = max(0.02 * float(published), 0.5 * 10**-decimals)
    return _round(abs(counted - float(published))) <= _round(tolerance)


def _accuracy(paper: str, claim: str, rule: str, config: str, dense: str = '', metric: int = 0):
    """Two trained networks, by default a pair's."""
    pair = pair_of(config)
    dense = dense or pair.dense
    key, name, scale = pair.metrics[metric]

    def verdict(evidence: dict[str, Any]) -> Verdict:
        own, baseline = (score(evidence, Run(c, 0), key, scale) for c in (config, dense))
        if not (own and baseline and own.whole and baseline.whole):
            return Verdict(paper, claim, f'not all {len(SEEDS)} seeds of both have been run', NOT_TESTABLE, rule)
        judge = {'same': judge_same, 'up': judge_up}[rule]
        found = f'{name} {own.mean:.1f} against {baseline.mean:.1f}, spread {max(own.spread, baseline.spread):.1f}'
        return Verdict(paper, claim, f'{found} ({config}, {dense})', judge(own, baseline), rule)

    return verdict


def _fewer(paper: str, claim: str, family: str, least: float, strictly: bool):
    def verdict(evidence: dict[str, Any]) -> Verdict:
        rows = {size: evidence['measured'].get(f'full_{family}-{size}'.replace(' ', '-')) for size in 'TSB'}
        if not all(rows.values()):
            return Verdict(paper, claim, 'not all sizes have been counted', NOT_TESTABLE, 'fewer')
        shares = {size: 1 - row['semantic'] / row['dense'] for size, row in rows.items()}
        found = ', '.join(f'{size} {100 * share:.1f} %' for size, share in shares.items())
        size = ' x '.join(map(str, rows['S']['size']))
        verdict = judge_fewer(list(shares.values()), least, strictly)
        return Verdict(paper, claim, f'{found} fewer in the backbone at {size}', verdict, 'fewer')

    return verdict


def _faster(paper: str, claim: str, family: str, least: float, strictly: bool):
    def verdict(evidence: dict[str, Any]) -> Verdict:
        rows = {size: speed_of(evidence['measured'], f'{family}-{size}', f'{family}-{size}') for size in 'TSB'}
        if not all(rows.values()):
            return Verdict(paper, claim, 'not all sizes have been timed', NOT_TESTABLE, 'faster')
        ratios = {size: row['ratio']['median'] for size, row in rows.items()}
        found = ', '.join(f'{size} {ratio:.2f} times' for size, ratio in ratios.items())
        batch = rows['S']['batch_size']
        verdict = judge_faster(list(ratios.values()), least, strictly)
        return Verdict(paper, claim, f'{found} the speed at batch {batch}', verdict, 'faster')

    return verdict


def _figure(paper: str, network: str, parameters: str, multiply_adds: str):
    claim = f'{network}: {parameters} M parameters, {multiply_adds} G multiply-adds'

    def verdict(evidence: dict[str, Any]) -> Verdict:
        row = evidence['measured'].get(f'published_{network}')
        if not row:
            return Verdict(paper, claim, 'not counted', NOT_TESTABLE, 'figure')
        counted = row['parameters'] / 1e6, row['multiply_adds'] / 1e9
        fits = agrees(counted[0], parameters) and agrees(counted[1], multiply_adds)
        found = f'{counted[0]:.2f} M, {counted[1]:.2f} G'
        return Verdict(paper, claim, found, HELD if fits else NOT_HELD, 'figure')

    return verdict


def _needs(paper: str, claim: str, data: str):
    return lambda evidence: Verdict(paper, claim, f'needs {data}', NOT_TESTABLE, 'data')


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

CLAIMS: tuple[Callable[[dict[str, Any]], Verdict], ...] = (
    _accuracy(STVIT, 'DeiT with 16 semantic tokens keeps its accuracy', 'same', 'stvit-tiny_digits'),
    _fewer(STVIT, 'DeiT-T/S/B with 16 semantic tokens: nearly 60 % fewer FLOPs', 'STViT', 0.55, False),
    _faster(STVIT, 'DeiT-T/S/B with 16 semantic tokens: inference more than 100 % faster', 'STViT', 2.0, True),
    _accuracy(STVIT, 'Swin with semantic tokens: accuracy slightly up', 'up', 'stvit-swin_digits'),
    _faster(STVIT, 'Swin-T/S/B with 16 semantic tokens a window: about 20 % faster', 'STViTSwin', 1.15, False),
    _accuracy(STVIT_R, 'competitive detection', 'same', 'mask-rcnn_stvit-r_digits'),
    _accuracy(STVIT_R, 'competitive instance segmentation', 'same', 'mask-rcnn_stvit-r_digits', metric=1),
    _fewer(STVIT_R, 'backbone FLOPs of detectors down by over 30 %', 'dense STViT-R', 0.30, True),
    _accuracy(T2T, 'trained from scratch, better than ViT', 'up', 't2t-vit_digits', 'vit-tiny_digits'),
    *(_figure(STVIT_R if 'STViT' in name else T2T, name, *figures) for name, figures in _FIGURES.items()),
    _needs(STVIT_R, 'STViT-R-Swin-S / B: 82.7 / 83.2 top-1 on ImageNet-1k', 'ImageNet-1k'),
    _needs(STVIT_R, 'STViT-R-Swin-S / B, Cascade Mask R-CNN: box AP 51.8 / 52.2, mask AP 44.7 / 45.2 on COCO', 'COCO'),
    _needs(T2T, 'T2T-ViT-14 / 19 / 24: 81.5 / 81.9 / 82.3 top-1 on ImageNet-1k, 14 at 384 px 83.3', 'ImageNet-1k'),
    _needs(T2T, 'T2T-ViT-7 / 10 / 12: 71.7 / 75.2 / 76.5 top-1 on ImageNet-1k', 'ImageNet-1k'),
)


def verdicts(evidence: dict[str, Any]) -> list[Verdict]:
    """All claims, judged."""
    return [claim(evidence) for claim in CLAIMS]
