"""What is told of two configurations that differ."""

import pytest

from frugalseg.keeping import changes
from frugalseg.keeping.changes import SHOWN


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"model": {"lr": 0.1}}, {"model": {"lr": 0.01}}, "model.lr 0.1 -> 0.01"),
        ({"a": 1}, {"a": 1, "b": {"c": "x"}}, "b.c (none) -> x"),
        ({"a": 1, "b": None}, {"a": 1}, "b null -> (none)"),
        ({"inputs": {"maps": "ab" * 32}}, {"inputs": {"maps": "cd" * 32}}, "inputs.maps abababab -> cdcdcdcd"),
        ({"scales": (1.0, 2.0)}, {"scales": [1.0]}, "scales [1.0, 2.0] -> [1.0]"),
        ({"scales": (1.0, 2.0)}, {"scales": [1.0, 2.0]}, ""),
        ({"name": "x" * 100}, {"name": "y"}, f"name {'x' * 57}... -> y"),
        ({}, {"a": 1}, "a (none) -> 1, identity {} -> (none)"),
        (None, 3, "identity null -> 3"),
    ],
)
def test_changes(before, now, said):
    assert changes(before, now) == said


def test_many_changes_are_counted():
    said = changes({f"k{n}": 0 for n in range(SHOWN + 3)}, {f"k{n}": 1 for n in range(SHOWN + 3)})
    assert said.startswith("k0 0 -> 1, k1 0 -> 1") and said.endswith(" and 3 more") and said.count("->") == SHOWN
