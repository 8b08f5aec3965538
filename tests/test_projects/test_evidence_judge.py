"""The judge of twins on made data, where the truth is known."""

import numpy as np
import pytest

from projects.evidence import judge
from projects.evidence.judge import Difference, compare_images, compare_scores, half_width, is_saturated


def made_twins(seed, seeds=3, images=1000, gap=0.03, by_seed=0.05):
    """Answers (seeds, images) of two networks; images are hard or easy for both, each seed has a gap of its own."""
    rng = np.random.default_rng(seed)
    dense = 0.5 + 0.2 * np.tanh(rng.normal(0.5, 1, images))
    own = dense + gap + by_seed * rng.standard_normal((seeds, 1))
    return rng.random((seeds, images)) < own, rng.random((seeds, images)) < dense


def resampled(own, dense, rng):
    """The plain bootstrap that draws images and, of three, seeds."""
    gaps = 100 * (own.astype(float) - dense)
    seeds, images = gaps.shape
    weights = rng.multinomial(images, np.full(images, 1 / images), 100)
    of_seeds = weights @ gaps.T / images
    return np.quantile(of_seeds[np.arange(100)[:, None], rng.integers(0, seeds, (100, seeds))].mean(1), (0.025, 0.975))


def test_the_interval_holds_the_truth_as_often_as_it_says(monkeypatch):
    """19 times in 20 where the seeds decide; drawing the three seeds again would hold it far less often."""
    monkeypatch.setattr(judge, 'DRAWS', 1000)
    rng, held, plain = np.random.default_rng(0), 0, 0
    for trial in range(200):
        twins = made_twins(trial)
        found, (low, high) = compare_images(*twins), resampled(*twins, rng)
        held += found.low <= 3 <= found.high
        plain += low <= 3 <= high
    print(held, plain)
    assert 0.91 <= held / 200 <= 0.985
    assert plain / 200 < 0.88


def test_the_interval_holds_the_truth_where_images_decide(monkeypatch):
    """Equal seeds: it may be wider than it need be, never narrower."""
    monkeypatch.setattr(judge, 'DRAWS', 1000)
    found = [compare_images(*made_twins(trial, by_seed=0.0, images=300)) for trial in range(100)]
    assert sum(f.low <= 3 <= f.high for f in found) >= 95


def test_pairing_by_image_takes_the_hard_images_out():
    """Twins that differ on few images: the interval is far narrower than that of two unrelated networks."""
    rng = np.random.default_rng(0)
    dense = np.tile(rng.random(2000) < 0.7, (3, 1))
    own = dense.copy()
    own[:, :20] = True
    other = np.stack([rng.permutation(row) for row in own])
    twins, strangers = compare_images(own, dense), compare_images(other, dense)
    assert twins.points == strangers.points > 0
    assert twins.image_error < strangers.image_error / 3


def test_order_of_images_and_sign():
    own, dense = made_twins(0)
    found, turned = compare_images(own, dense), compare_images(dense, own)
    assert turned.points == -found.points
    assert turned.low == pytest.approx(-found.high, rel=0.03)
    order = np.random.default_rng(1).permutation(own.shape[1])
    assert compare_images(own[:, order], dense[:, order]) == found


def test_seeds_alone_give_students_interval():
    """As a table of Student's distribution has it: 4.303 standard errors for three seeds, 2.776 for five."""
    for gaps, t in (((1.0, 2.0, 3.0), 4.303), ((1.0, 2.0, 3.0, 2.0, 2.0), 2.776)):
        found = compare_scores(np.add(80, gaps), [80.0] * len(gaps))
        error = np.std(gaps, ddof=1) / len(gaps) ** 0.5
        assert found.points == 2
        assert (found.high - found.low) / 2 == pytest.approx(t * error, rel=0.01)
        assert half_width(found.spread, found.seeds, 0.0) == pytest.approx(t * error, rel=0.01)
    assert half_width(0.0, 3, 1.0) == pytest.approx(1.96, rel=0.03)


@pytest.mark.parametrize(
    'low, high, verdict',
    [
        (0.2, 1.4, 'higher by 0.2 to 1.4'),
        (0.0, 1.4, 'kept within 0.5 points'),
        (-0.5, -0.1, 'kept within 0.5 points'),
        (-1.4, -0.2, 'lower by 0.2 to 1.4'),
        (-0.6, 0.0, 'undecided: about 5 seeds would decide'),
    ],
)
def test_each_verdict_at_its_borders(low, high, verdict):
    assert Difference((low + high) / 2, low, high, 3, 0.2).verdict == verdict


def test_verdicts_of_made_twins():
    """Gaps of known size, seeds that hardly differ, and many images."""
    kinds = [compare_images(*made_twins(0, 5, 40_000, gap, 0.001)).kind for gap in (0.03, -0.03)]
    assert kinds == ['higher', 'lower']
    rng = np.random.default_rng(0)
    dense = rng.random((3, 20_000)) < 0.9
    own = dense ^ (rng.random(dense.shape) < 0.001)
    assert compare_images(own, dense).kind == 'kept'
    assert compare_images(*made_twins(0, 3, 200, -0.005, 0.02)).kind == 'undecided'


def test_so_many_seeds_would_decide():
    """With the number that it names the interval of the same spread is decided, with one less it is not."""
    found = compare_scores([80.0, 80.6, 79.4], [80.3] * 3)
    needed = found.seeds_needed()
    room = max(found.points + 0.5, -found.points)
    assert found.kind == 'undecided' and needed > 3
    assert half_width(found.spread, needed, 0.0) <= room < half_width(found.spread, needed - 1, 0.0)
    assert found.verdict == f'undecided: about {needed} seeds would decide'
    few_images = Difference(-0.25, -2.0, 1.5, 3, 0.1, image_error=0.9)
    assert few_images.verdict == 'undecided: 100 seeds would not decide, it takes more test images'


def test_saturation():
    digits = [(99.1, 99.6, 98.9), (99.1, 99.6, 99.1)]
    assert is_saturated(digits, 450)
    assert not is_saturated([(99.1, 99.2, 99.1)] * 2, 1_000_000)  # the same accuracy, known better
    assert not is_saturated([*digits, (97.0, 97.1, 97.2)], 450)  # one that can be told from a perfect one
    assert not is_saturated([(86.6, 86.8, 86.5), (85.1, 85.4, 83.6)], 10_000)
    assert is_saturated([(100.0,) * 3], 450)


def test_what_cannot_be_compared():
    own, dense = made_twins(0)
    with pytest.raises(ValueError, match='same seeds and images'):
        compare_images(own, dense[:, 1:])
    with pytest.raises(ValueError, match='same seeds'):
        compare_scores([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match='one seed has no spread'):
        compare_scores([1.0], [2.0])


def test_one_seed_is_judged_by_its_images_alone():
    own, dense = made_twins(0)
    found = compare_images(own[:1], dense[:1])
    gaps = 100 * (own[0].astype(float) - dense[0])
    assert found.points == pytest.approx(gaps.mean(), abs=1e-6) and (found.spread, found.seeds) == (0.0, 1)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * gaps.std() / len(gaps) ** 0.5, rel=0.03)
