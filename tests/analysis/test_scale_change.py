"""Object sizes against loops, and the drawing of episodes of unequal size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from frugalseg.analysis.scale_change import DIRECTIONS, largest_object, scale_episodes, terciles

masks = arrays.arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1, 2, 255]))


def flooded(mask, class_id):
    """The largest region by flooding, pixel by pixel."""
    left, largest = {(y, x) for y, x in np.argwhere(mask == class_id).tolist()}, 0
    while left:
        edge, size = [left.pop()], 0
        while edge:
            y, x = edge.pop()
            size += 1
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        largest = max(largest, size)
    return largest


@settings(deadline=None, max_examples=60)
@given(masks)
def test_largest_object_is_that_of_flooding(mask):
    for class_id in (1, 2):
        assert largest_object(mask, class_id) == flooded(mask, class_id)


def test_terciles_leave_the_middle_out_and_break_ties_by_name():
    areas = {"d": 5, "a": 9, "c": 5, "b": 1, "e": 7}
    assert terciles(areas) == (["b"], ["a"])
    assert terciles(dict.fromkeys("fcabde", 3)) == (["a", "b"], ["e", "f"])


@pytest.fixture
def areas():
    rng = np.random.default_rng(0)
    return {c: {f"{c}-{n}": int(a) for n, a in enumerate(rng.permutation(30))} for c in (3, 7)}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_supports_and_queries_are_of_opposite_thirds(areas, direction):
    rows = scale_episodes(areas, direction, 40, shots=2, seed=5)
    assert [row.number for row in rows] == list(range(40))
    for row in rows:
        size = areas[row.class_id]
        assert len(set(row.supports)) == 2
        query, supports = size[row.query], [size[name] for name in row.supports]
        small, large = ([query], supports) if direction == "large-small" else (supports, [query])
        assert max(small) < 10
        assert min(large) >= 20


def test_every_query_comes_once_before_any_comes_twice(areas):
    rows = scale_episodes(areas, "small-large", 40)
    for class_id in areas:
        queries = [row.query for row in rows if row.class_id == class_id]
        assert len(queries) == 20
        assert len(set(queries[:10])) == 10
        assert queries[10:] == queries[:10]
    pairs = [(row.query, row.supports) for row in rows]
    assert len(set(pairs)) > 20, "the second round has other supports"


def test_episodes_are_a_function_of_the_seed(areas):
    first = scale_episodes(areas, "large-small", 12, seed=1)
    turned = {c: dict(reversed(images.items())) for c, images in reversed(areas.items())}
    assert scale_episodes(turned, "large-small", 12, seed=1) == first
    assert scale_episodes(areas, "large-small", 12, seed=2) != first
    assert scale_episodes(areas, "large-small", 20, seed=1)[:12] == first


def test_too_few_images_of_a_class_are_named(areas):
    with pytest.raises(ValueError, match="class 9 has 1 images in a third of 5"):
        scale_episodes({**areas, 9: dict.fromkeys("abcde", 4)}, "small-large", 4, shots=2)
    with pytest.raises(ValueError, match="class 9 has 0 images"):
        scale_episodes({9: {"a": 1, "b": 2}}, "small-large", 4)
    with pytest.raises(ValueError, match="direction"):
        scale_episodes(areas, "up", 4)  # type: ignore[arg-type]
