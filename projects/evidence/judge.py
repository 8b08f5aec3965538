"""Twins compared like an experiment: the difference in points, its 95 % interval, and a verdict by rule.

Twins are two networks trained on the same data in the same order, seed by seed, and tested on the same images. Chance
enters by the seeds and by the test images, so the interval is a bootstrap over both: images are drawn with all seeds'
answers to them, and an effect of the seeds is added. Resampling three seeds would spread too little (in simulations
such intervals hold the truth 8 times in 10), so it is drawn from Student's distribution with the seeds' own spread.
What is chance in a single answer counts in both: where seeds hardly differ the interval is wider than it need be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

# Points that a network may lose and still count as keeping its accuracy.
KEPT_WITHIN = 0.5
DRAWS = 20_000
MOST_SEEDS = 100
RULES = (
    f'kept: at the low end of the interval no more than {KEPT_WITHIN} points are lost',
    'higher: all of it is above zero',
    'lower: all of it is below zero, and more than what counts as kept may be lost',
    'undecided: none of these, with the number of seeds that would decide if they went on as these',
)


@dataclass(frozen=True)
class Difference:
    """Of twins, their own minus the dense network's accuracy.

    Attributes:
        points: the mean over the seeds.
        low, high: the ends of the 95 % interval, in points.
        seeds: how many.
        spread: standard deviation over the seeds, in points.
        image_error: standard error that the choice of the test images makes, in points; 0 where they are not known.
    """

    points: float
    low: float
    high: float
    seeds: int
    spread: float
    image_error: float = 0.0

    @property
    def kind(self) -> str:
        """``'higher'``, ``'kept'``, ``'lower'`` or ``'undecided'``, see ``RULES``."""
        if self.low > 0:
            return 'higher'
        if self.low >= -KEPT_WITHIN:
            return 'kept'
        return 'lower' if self.high < 0 else 'undecided'

    @property
    def verdict(self) -> str:
        """The kind, with its figures."""
        if self.kind == 'undecided':
            return f'undecided: {self._what_would_decide()}'
        ends = {'higher': (self.low, self.high), 'lower': (-self.high, -self.low)}.get(self.kind)
        return f'{self.kind} by {ends[0]:.1f} to {ends[1]:.1f}' if ends else f'kept within {KEPT_WITHIN} points'

    def _what_would_decide(self) -> str:
        needed = self.seeds_needed()
        if needed:
            return f'about {needed} seeds would decide'
        return f'{MOST_SEEDS} seeds would not decide' + ', it takes more test images' * bool(self.image_error)

    def seeds_needed(self) -> int | None:
        """So many seeds of the same mean and spread would decide; ``None`` where ``MOST_SEEDS`` would not."""
        room = max(self.points + KEPT_WITHIN, -self.points)
        numbers = range(self.seeds + 1, MOST_SEEDS + 1)
        return next((n for n in numbers if half_width(self.spread, n, self.image_error) <= room), None)


def compare_images(own: Sequence[np.ndarray], dense: Sequence[np.ndarray]) -> Difference:
    """Compare twins whose answers are known for each image.

    Args:
        own, dense: (seeds, images), bool: whether an image is right; row by row of the same seed. With one seed the
            interval is one over images alone: another seed may lie outside it.

    Raises:
        ValueError: the shapes differ.
    """
    own, dense = np.asarray(own), np.asarray(dense)
    if own.shape != dense.shape or own.ndim != 2:
        raise ValueError(f'twins must have the same seeds and images, got {own.shape} and {dense.shape}')
    gaps = 100 * (own.astype(float) - dense)
    # What the seeds say of an image is one of a few values: how often each is drawn is all that a draw of images needs.
    values, counts = np.unique(gaps.mean(0), return_counts=True)
    images = gaps.shape[1]
    draws = np.random.default_rng(0).multinomial(images, counts / images, DRAWS) @ values / images
    return _difference(gaps.mean(1), draws - gaps.mean())


def compare_scores(own: Sequence[float], dense: Sequence[float]) -> Difference:
    """Compare twins by their scores in per cent, (seeds,) each: by the seeds alone, as nothing is known of images.

    Raises:
        ValueError: the numbers of seeds differ, or there is one seed.
    """
    if len(own) != len(dense):
        raise ValueError(f'twins must have the same seeds, got {len(own)} and {len(dense)}')
    if len(own) < 2:
        raise ValueError('one seed has no spread: an interval takes two or more')
    return _difference(np.subtract(own, dense), np.zeros(DRAWS))


def _difference(gaps: np.ndarray, image_draws: np.ndarray) -> Difference:
    """From the gap of each seed, in points, and draws of what the images add to their mean."""
    seeds, points = len(gaps), gaps.mean()
    spread, draws = 0.0, points + image_draws
    if seeds > 1:
        spread = gaps.std(ddof=1)
        draws = draws + _seed_draws(spread, seeds)
    # Exact at the borders, in spite of what floats do to sums.
    figures = (points, *np.quantile(draws, (0.025, 0.975)))
    return Difference(*(round(float(v), 6) for v in figures), seeds, float(spread), float(image_draws.std()))


def _seed_draws(spread: float, seeds: int) -> np.ndarray:
    """What the seeds add to a mean, from Student's distribution: evenly by its quantiles, as its tails are long."""
    half = t.ppf(0.5 + (np.arange(DRAWS // 2) + 0.5) / DRAWS, seeds - 1)
    return np.random.default_rng(1).permutation(np.concatenate([half, -half])) * spread / seeds**0.5


def half_width(spread: float, seeds: int, image_error: float) -> float:
    """Half of a 95 % interval, from the spread over the seeds and the standard error of the images."""
    images = image_error * np.random.default_rng(2).standard_normal(DRAWS)
    return float(np.quantile(np.abs(images + _seed_draws(spread, seeds)), 0.95))


def is_saturated(scores: Sequence[Sequence[float]], samples: int) -> bool:
    """Whether no network of a comparison can be told from a perfect one: then the task is no evidence.

    Args:
        scores: top-1 in per cent, of each network over its seeds.
        samples: how many were tested.

    Returns:
        Whether all are within their spread of 100 %: half the 95 % interval by seeds and number of samples.
    """

    def reaches(values: Sequence[float]) -> bool:
        mean = np.mean(values)
        error = (max(0.0, mean * (100 - mean)) / samples) ** 0.5
        return bool(mean + half_width(np.std(values, ddof=1), len(values), error) >= 100)

    return all(map(reaches, scores))
