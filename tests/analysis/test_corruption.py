"""Spoilt masks and walls of boundaries against loops over pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import label

from frugalseg.analysis.corruption import boundary_cells, corrupted, moved, resized_by, without_void
from frugalseg.data.io import read_mask
from frugalseg.data.voc import index
from frugalseg.ops.random_walk import affinity_from_edges, path_offsets

few = settings(deadline=None, max_examples=30)
sides = st.tuples(st.integers(1, 12), st.integers(1, 12))
masks = hnp.arrays(np.uint8, sides, elements=st.sampled_from([0, 0, 3, 20, 255]))
regions = hnp.arrays(np.bool_, sides)


@few
@given(masks)
def test_unknown_pixels_get_a_nearest_class(mask):
    known = [(y, x) for y, x in np.ndindex(mask.shape) if mask[y, x] != 255]
    if not known:
        with pytest.raises(ValueError, match="single known"):
            without_void(mask)
        return
    filled = without_void(mask)
    for y, x in np.ndindex(mask.shape):
        distances = {place: (place[0] - y) ** 2 + (place[1] - x) ** 2 for place in known}
        nearest = min(distances.values())
        assert filled[y, x] in {mask[place] for place, distance in distances.items() if distance == nearest}


@few
@given(regions, st.integers(-3, 3))
def test_growing_and_shrinking(region, pixels):
    result = resized_by(region, pixels)
    # shrinking is growing of what is outside
    grows = region if pixels >= 0 else ~region
    for y, x in np.ndindex(region.shape):
        near = any((v - y) ** 2 + (u - x) ** 2 <= pixels**2 for v, u in zip(*grows.nonzero(), strict=True))
        assert result[y, x] == (near if pixels >= 0 else not near)


@few
@given(regions, st.integers(-14, 14), st.integers(-14, 14))
def test_moving(region, dy, dx):
    result = moved(region, dy, dx)
    for y, x in np.ndindex(region.shape):
        inside = 0 <= y - dy < region.shape[0] and 0 <= x - dx < region.shape[1]
        assert result[y, x] == (inside and region[y - dy, x - dx])


def scene():
    """Two squares side by side, a third class far off, and a seam of unknown pixels."""
    mask = np.zeros((60, 80), np.uint8)
    mask[10:40, 10:40], mask[10:40, 40:70], mask[50:58, 60:75] = 3, 7, 12
    mask[9:11, 10:70] = 255
    return mask


def test_without_amounts_the_mask_is_only_filled():
    mask = scene()
    assert np.array_equal(corrupted(mask, np.random.default_rng(0), 0, 0), without_void(mask))


def test_corruption_depends_on_the_generator_alone_and_leaves_its_input():
    mask = scene()
    before = mask.copy()
    first, again, other = (corrupted(mask, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(mask, before)
    assert set(np.unique(first)) <= {0, 3, 7, 12}


@pytest.mark.parametrize(("radius", "shift"), [(3, 0), (0, 4), (3, 4)])
def test_labels_change_only_near_boundaries(radius, shift):
    """A pixel farther from every other class than growth and shift reach keeps its label."""
    filled = without_void(scene())
    reach = radius + shift * 2**0.5
    changed = np.zeros(filled.shape, bool)
    for seed in range(20):
        changed |= corrupted(scene(), np.random.default_rng(seed), radius, shift) != filled
    far = np.ones(filled.shape, bool)
    for class_id in np.unique(filled):
        far &= (filled == class_id) | ~resized_by(filled == class_id, reach + 1)
    assert far.any()
    assert not changed[far].any()
    assert changed.sum() > 500


def test_either_of_two_neighbours_may_cover_the_other():
    """At their common border, somewhere in a few draws, both orders of painting are seen."""
    filled = without_void(scene())
    took = {3: False, 7: False}
    for seed in range(20):
        spoilt = corrupted(scene(), np.random.default_rng(seed), 5, 0)
        took[3] |= bool((spoilt[15:35, 40:45] == 3).any())
        took[7] |= bool((spoilt[15:35, 35:40] == 7).any())
    assert set(filled[15:35, 35:45].flatten()) == {3, 7}
    assert all(took.values())


@few
@given(masks.filter(lambda m: (m != 255).any()), st.integers(1, 5))
def test_boundary_cells_hold_a_change_to_the_right_or_below(mask, stride):
    filled = without_void(mask)
    height, width = filled.shape
    expected = np.zeros((-(-height // stride), -(-width // stride)), np.float32)
    for y, x in np.ndindex(filled.shape):
        right = x + 1 < width and filled[y, x] != filled[y, x + 1]
        below = y + 1 < height and filled[y, x] != filled[y + 1, x]
        if right or below:
            expected[y // stride, x // stride] = 1
    assert np.array_equal(boundary_cells(mask, stride), expected)


def leaks(mask, stride=4):
    """How many pairs of cells of different classes are joined by a path without a wall."""
    filled, edge = without_void(mask), boundary_cells(mask, stride)
    classes, (height, width) = filled[::stride, ::stride], edge.shape
    count = 0
    for pairs, (dy, dx) in zip(
        affinity_from_edges(torch.as_tensor(edge), 5).numpy(), path_offsets(5).tolist(), strict=True
    ):
        left, right = max(0, -dx), max(0, width - max(0, dx))
        here, there = classes[: max(0, height - dy), left:right], classes[dy:, left + dx : right + dx]
        if here.size:
            count += np.count_nonzero((pairs[: height - dy, left:right] > 0) & (here != there))
    return count


@few
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.sampled_from([0, 0, 0, 3])))
def test_walls_have_no_gaps(mask):
    assert leaks(mask) == 0


def test_a_gap_would_be_found(monkeypatch):
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 3
    assert leaks(mask) == 0
    edge = boundary_cells(mask)
    edge[5] = 0
    monkeypatch.setitem(leaks.__globals__, "boundary_cells", lambda *_: edge)
    assert leaks(mask) > 0


@pytest.mark.real
def test_walls_of_a_genuine_mask_are_thin_and_have_no_gaps(real_voc):
    sample = next(s for s in index(real_voc, "val") if s.mask is not None)
    mask = read_mask(sample.mask, 21)
    edge = boundary_cells(mask)
    assert leaks(mask) == 0
    # no 3 x 3 block of walls, and they part the image
    blocks = np.lib.stride_tricks.sliding_window_view(edge, (3, 3)).min(axis=(2, 3))
    assert 0 < edge.mean() < 0.2
    assert blocks.mean() < 0.01
    assert label(edge == 0)[1] >= 2
