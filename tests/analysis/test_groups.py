"""Thirds by frequency against a sorted list."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from frugalseg.analysis.groups import GROUPS, frequency_groups


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 6), max_size=20))
def test_frequency_groups(counts):
    ranked = sorted(range(1, len(counts) + 1), key=lambda c: (-counts[c - 1], c))
    third = len(counts) // 3
    middle = len(counts) - 2 * third
    expected = (ranked[:third], ranked[third : third + middle], ranked[third + middle :])
    groups = frequency_groups(np.array(counts, dtype=np.int64))
    assert tuple(groups) == GROUPS
    for ids, wanted in zip(groups.values(), expected, strict=True):
        assert ids.dtype == np.int64
        assert ids.tolist() == sorted(wanted)
