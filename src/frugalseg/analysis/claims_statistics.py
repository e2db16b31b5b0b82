"""From paired differences to a verdict: Student's t, and Holm's correction for the number of claims."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
FLAT = 1e-5
"""Differences whose deviation is below this share of the largest are equal up to the rounding of logged float32s."""
HOLDS, CONTRADICTED, NOT_SHOWN = "holds", "contradicted", "not shown"


class Effect(NamedTuple):
    """What paired differences say of their mean.

    Attributes:
        n: number of pairs.
        mean: of the differences; NaN without any.
        std: sample standard deviation; NaN for less than two.
        low: lower end of the interval; NaN for less than two.
        high: upper end.
        flat: whether all differences are equal, so that there is no spread to judge by.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    flat: bool


def effect_of(differences: ArrayLike) -> Effect:
    """Mean, and its interval by Student's t with n - 1 degrees of freedom.

    Args:
        differences: (n,) of pairs, finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    n, nan = len(values), float("nan")
    if n < 2:
        return Effect(n, float(values.mean()) if n else nan, nan, nan, nan, False)
    mean, std = float(values.mean()), float(values.std(ddof=1))
    from scipy.special import stdtrit  # a third of a second, which other verbs do without

    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / n**0.5
    return Effect(n, mean, std, mean - half, mean + half, std <= FLAT * float(np.abs(values).max()))


def verdict(effect: Effect, sign: float = 1.0, margin: float = 0.0) -> str:
    """What an effect says of a claim.

    Args:
        effect: of the differences.
        sign: 1.0 where a positive effect is claimed, -1.0 where a negative one is.
        margin: smallest effect of interest, not negative.

    Returns:
        `HOLDS` where the whole interval lies beyond the margin as claimed, `CONTRADICTED` where the whole of it lies
        beyond 0 the other way, else `NOT_SHOWN`: so where there is no interval, or no spread to take one from.
    """
    if effect.n < 2 or effect.flat:
        return NOT_SHOWN
    low, high = sorted((sign * effect.low, sign * effect.high))
    if low > margin:
        return HOLDS
    return CONTRADICTED if high < 0 else NOT_SHOWN


def p_value(effect: Effect, sign: float = 1.0, margin: float = 0.0) -> float:
    """Two-sided p of the test that the verdict rests on: below 1 - `CONFIDENCE` exactly where there is a verdict.

    Args:
        effect: of the differences.
        sign: as in `verdict`.
        margin: as in `verdict`.

    Returns:
        That of the mean against the margin where it lies beyond that as claimed, against 0 where it lies the other
        way; 1 between the two, for less than two pairs and for differences that are all equal.
    """
    mean = sign * effect.mean
    distance = mean - margin if mean > margin else -mean if mean < 0 else 0.0
    if effect.n < 2 or effect.flat or not distance > 0:
        return 1.0
    from scipy.special import stdtr

    return float(2 * stdtr(effect.n - 1, -distance * effect.n**0.5 / effect.std))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: the smallest of m is multiplied by m, the next by m - 1, and so on, never falling.

    Args:
        values: p-values of all tests of the family.

    Returns:
        In the same order, at most 1.
    """
    p = np.asarray(values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
