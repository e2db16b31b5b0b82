"""Boundary regions and IoU against erosions by loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.ops.boundary import boundary_counts, boundary_iou, boundary_region, boundary_width

few = settings(deadline=None, max_examples=40)
sizes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


def region(mask, width):
    """A mask minus its erosion: pixels that have one outside of the mask, or of the image, within `width`."""
    height, breadth = mask.shape
    result = np.zeros_like(mask)
    for y, x in zip(*mask.nonzero(), strict=True):
        for v in range(y - width, y + width + 1):
            for u in range(x - width, x + width + 1):
                if not (0 <= v < height and 0 <= u < breadth and mask[v, u]):
                    result[y, x] = True
    return result


def counts_of(pred, target, classes, width):
    """(3, K) class by class; ignored pixels are in no mask."""
    rows = np.zeros((3, classes), np.int64)
    for k in range(classes):
        true, guess = (region((ids == k) & (target != 255), width) for ids in (target, pred))
        rows[:, k] = (true & guess).sum(), true.sum(), guess.sum()
    return rows


@st.composite
def pairs(draw):
    classes, shape = draw(st.integers(1, 4)), draw(sizes)
    target = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([*range(classes), 255])))
    pred = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, classes - 1)))
    # blocks rather than noise, so that something is left of an erosion
    target, pred = (np.kron(ids, np.ones((3, 3), np.uint8)) for ids in (target, pred))
    return classes, pred, target, draw(st.integers(1, 4))


@few
@given(pairs())
def test_counts_equal_loops_over_classes_and_squares(case):
    classes, pred, target, width = case
    counts = boundary_counts(torch.as_tensor(pred), torch.as_tensor(target), classes, width)
    assert counts.dtype == torch.int64
    np.testing.assert_array_equal(counts, counts_of(pred, target, classes, width))


@few
@given(pairs())
def test_a_prediction_that_is_right_wherever_it_counts_scores_one(case):
    classes, pred, target, width = case
    right = np.where(target == 255, pred, target)
    counts = boundary_counts(torch.as_tensor(right), torch.as_tensor(target), classes, width)
    occurs = np.isin(np.arange(classes), target)
    np.testing.assert_array_equal(boundary_iou(counts), np.where(occurs, 1.0, np.nan))


def test_the_border_of_the_image_is_a_boundary():
    near = boundary_region(torch.zeros(7, 9, dtype=torch.uint8), 2)
    expected = torch.ones(7, 9, dtype=torch.bool)
    expected[2:-2, 2:-2] = False
    assert torch.equal(near, expected)


def test_a_region_wider_than_the_image_is_all_of_it():
    assert boundary_region(torch.zeros(3, 2).long(), 50).all()
    assert boundary_region(torch.zeros(0, 4).long(), 1).shape == (0, 4)


@pytest.mark.parametrize("size", [(375, 500), (3, 4), (1, 1), (1024, 2048), (30, 40)])
def test_width_is_two_percent_of_the_diagonal(size):
    width, exact = boundary_width(size), 0.02 * math.sqrt(size[0] ** 2 + size[1] ** 2)
    assert width >= 1
    assert abs(width - max(exact, 1)) <= 0.5


def test_the_width_follows_the_image_where_none_is_given():
    rng = np.random.default_rng(0)
    pred, target = (torch.as_tensor(np.kron(rng.integers(0, 3, (5, 6)), np.ones((20, 30), int))) for _ in "ab")
    width = boundary_width((100, 180))
    assert width > 2
    assert torch.equal(boundary_counts(pred, target, 3), boundary_counts(pred, target, 3, width))


@few
@given(hnp.arrays(np.int64, (3, 4), elements=st.sampled_from([0, 0, 1, 5])))
def test_scores_are_what_is_shared_over_what_is_in_either(parts):
    counts = np.stack([parts[0], parts[0] + parts[1], parts[0] + parts[2]])
    for k, score in enumerate(boundary_iou(torch.as_tensor(counts))):
        union = int(parts[:, k].sum())
        assert score == int(parts[0, k]) / union if union else np.isnan(score)


def test_wrong_arguments():
    ids = torch.zeros(3, 3).long()
    with pytest.raises(ValueError, match="width"):
        boundary_region(ids, 0)
    with pytest.raises(ValueError, match="alike"):
        boundary_counts(ids, ids[:2], 2)
    for wrong in (2, -1, 255):
        with pytest.raises(ValueError, match=r"prediction.*0\.\.1"):
            boundary_counts(ids + wrong, ids, 2)
    assert int(boundary_counts(ids + 9, ids + 255, 2).sum()) == 0
    for wrong in (2, -1):
        with pytest.raises(ValueError, match=r"target.*0\.\.1"):
            boundary_counts(ids, ids + wrong, 2)
