"""DINO's schedules against NumPy, and at their ends; the golden ones are in tests/papers/mevt."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frugalseg.optim import cosine_schedule, linear_warmup

few = settings(deadline=None, max_examples=50)


@few
@given(st.integers(1, 60), st.integers(0, 60), st.floats(0, 3), st.floats(0, 3))
def test_cosine_equals_arrays(total, warmup, base, final):
    warmup = min(warmup, total)
    rest = np.arange(total - warmup)
    curve = final + 0.5 * (base - final) * (1 + np.cos(np.pi * rest / max(len(rest), 1)))
    expected = np.concatenate([np.linspace(0, base, warmup), curve])
    found = [cosine_schedule(step, total, base, final, warmup) for step in range(total)]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert cosine_schedule(total, total, base, final, warmup) == final
    assert cosine_schedule(10 * total, total, base, final, warmup) == final


@few
@given(st.integers(1, 500), st.floats(0.9, 1))
def test_momentum_of_the_teacher(total, start):
    """mevt.md c.1: m(t) = 1 - (1 - m0)(1 + cos(pi t / T)) / 2."""
    found = [cosine_schedule(step, total, start, 1.0) for step in range(total + 1)]
    expected = [1 - (1 - start) * (1 + np.cos(np.pi * step / total)) / 2 for step in range(total + 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[0] == start
    assert found[-1] == 1
    assert np.all(np.diff(found) >= 0)


@pytest.mark.parametrize(("total", "warmup"), [(0, 0), (-1, 0), (5, 6), (5, -1)])
def test_impossible_schedules_are_refused(total, warmup):
    with pytest.raises(ValueError, match=str(total)):
        cosine_schedule(0, total, 1.0, 0.0, warmup)


@few
@given(st.integers(0, 20), st.floats(0, 1), st.floats(0, 1))
def test_linear_warmup_equals_arrays(length, start, end):
    rise = np.linspace(start, end, length) if length > 1 else np.zeros(0)
    expected = [*rise, *[end] * 5]
    found = [linear_warmup(step, length, start, end) for step in range(len(expected))]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
