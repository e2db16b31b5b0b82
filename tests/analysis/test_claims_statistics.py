"""Intervals against scipy and plain NumPy, verdicts at their edges, Holm against a naive implementation."""

import math

import numpy as np
import pytest
from scipy import stats

from frugalseg.analysis.claims_statistics import (
    CONTRADICTED,
    HOLDS,
    NOT_SHOWN,
    Effect,
    effect_of,
    holm,
    p_value,
    verdict,
)  # fmt: skip

SAMPLES = [(5, 0.3, 1.0), (5, 2.0, 0.5), (3, -1.0, 0.2), (2, 0.0, 1.0), (12, 0.1, 3.0)]


@pytest.mark.parametrize(("n", "mean", "std"), SAMPLES)
def test_an_interval_equals_that_of_the_paired_t_test(n, mean, std):
    rng = np.random.default_rng(n)
    baseline = rng.normal(50, 5, n)
    treatment = baseline + rng.normal(mean, std, n)
    effect = effect_of(treatment - baseline)
    oracle = stats.ttest_rel(treatment, baseline)
    interval = oracle.confidence_interval(0.95)
    assert effect.n == n
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high))
    assert p_value(effect, math.copysign(1.0, effect.mean)) == pytest.approx(oracle.pvalue)


def test_five_differences_by_hand():
    """t of 4 degrees of freedom at 97.5 % is 2.776445 in any table."""
    differences = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776445 * math.sqrt(2.5 / 5)
    effect = effect_of(differences)
    assert (effect.mean, effect.std) == pytest.approx((3.0, math.sqrt(2.5)))
    assert (effect.low, effect.high) == pytest.approx((3 - half, 3 + half), rel=1e-6)


def interval(low, high, n=5):
    return Effect(n, (low + high) / 2, 1.0, low, high, False)


@pytest.mark.parametrize(
    ("low", "high", "margin", "told"),
    [
        (0.1, 1, 0, HOLDS),
        (0.0, 1, 0, NOT_SHOWN),
        (-0.1, 1, 0, NOT_SHOWN),
        (1.0, 3, 1, NOT_SHOWN),
        (1.1, 3, 1, HOLDS),
        (0.1, 0.9, 1, NOT_SHOWN),
        (-2, -0.1, 0, CONTRADICTED),
        (-2, -0.1, 5, CONTRADICTED),
        (-2, 0.0, 0, NOT_SHOWN),
    ],
)
def test_verdicts_at_their_edges(low, high, margin, told):
    assert verdict(interval(low, high), 1.0, margin) == told
    assert verdict(interval(-high, -low), -1.0, margin) == told


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("margin", [0.0, 0.4])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_p_is_small_exactly_where_there_is_a_verdict(seed, margin, sign):
    rng = np.random.default_rng(seed)
    effect = effect_of(rng.normal(rng.uniform(-1, 1), 0.5, 5))
    assert (p_value(effect, sign, margin) < 0.05) == (verdict(effect, sign, margin) != NOT_SHOWN)


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 0.0, 0.0], [0.3, 0.1 + 0.2, 0.3], [50.000002, 50.0, 50.000001]])
def test_what_has_no_spread_shows_nothing(values):
    effect = effect_of(values)
    assert verdict(effect) == verdict(effect, -1.0) == NOT_SHOWN
    assert p_value(effect) == p_value(effect, -1.0) == 1.0
    assert effect.flat == (len(values) > 1)
    assert math.isnan(effect.low) == (len(values) < 2) and math.isnan(effect.mean) == (not values)


def test_two_pairs_have_a_wide_interval():
    effect = effect_of([1.0, 1.2])
    assert not effect.flat and effect.low < 0 < effect.high and verdict(effect) == NOT_SHOWN


def naive_holm(values):
    """Step down: the k-th smallest passes only where all smaller ones have."""
    adjusted = {}
    worst, left = 0.0, list(enumerate(values))
    while left:
        place, p = min(left, key=lambda pair: pair[1])
        worst = max(worst, min(1.0, p * len(left)))
        adjusted[place] = worst
        left.remove((place, p))
    return [adjusted[place] for place in range(len(values))]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 30])
def test_holm_equals_the_naive_one(count):
    values = np.random.default_rng(count).uniform(0, 0.3, count) ** 2
    values[: count // 3] = 1.0
    assert holm(list(values)) == pytest.approx(naive_holm(list(values)))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
