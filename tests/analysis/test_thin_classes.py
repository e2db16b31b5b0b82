"""Thin and small classes: shapes of regions against distances by brute force, and figures whose shape is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from frugalseg.analysis.thin_classes import LEAST, class_shapes, group_scores, region_shapes, shape_groups

masks = arrays.arrays(np.uint8, (8, 10), elements=st.sampled_from([0, 1, 1, 1, 2]))


def regions_of(mask, class_id):
    """Sets of pixels, by flooding."""
    left, found = {(y, x) for y, x in np.argwhere(mask == class_id).tolist()}, []
    while left:
        edge = [left.pop()]
        region = set(edge)
        while edge:
            y, x = edge.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            region |= near
            edge += near
        found.append(region)
    return found


def slow_shapes(mask, class_id):
    """Every distance of every pixel inside to every pixel outside; the frame beyond the picture is outside."""
    height, width = mask.shape
    found = []
    for region in regions_of(mask, class_id):
        if len(region) < LEAST:
            continue
        outside = [(y, x) for y in range(-1, height + 1) for x in range(-1, width + 1) if (y, x) not in region]
        radius = max(min(np.hypot(y - v, x - u) for v, u in outside) for y, x in region) - 0.5
        area = len(region)
        found.append((area / mask.size, 2 * radius / max(height, width), area / (np.pi * radius**2)))
    return sorted(found)


@settings(deadline=None, max_examples=40)
@given(masks)
def test_shapes_are_those_of_brute_force(mask):
    np.testing.assert_allclose(
        np.array(sorted(region_shapes(mask, 1))).reshape(-1, 3), np.array(slow_shapes(mask, 1)).reshape(-1, 3)
    )


@pytest.fixture
def drawn():
    """1 a ground, 2 a disc, 3 a slanted bar, 4 a ring, 5 a dot."""
    y, x = np.mgrid[:96, :96] + 0.5
    mask = np.ones((96, 96), np.uint8)
    mask[np.hypot(x - 25, y - 25) < 20] = 2
    mask[(np.abs(x - y + 40) < 6) & (np.abs(x + y - 110) < 40)] = 3
    mask[np.abs(np.hypot(x - 70, y - 25) - 15) < 4] = 4
    mask[np.hypot(x - 75, y - 75) < 7] = 5
    return mask


def test_groups_of_drawn_figures(drawn):
    shapes = class_shapes([drawn], range(1, 7))
    assert set(shapes) == {1, 2, 3, 4, 5}, "no region of class 6"
    # its middle is a corner of pixels, so that a pixel's own disc is up to two pixels narrower
    assert 37.5 <= 96 * shapes[2].width <= 40
    assert 1 <= shapes[2].slenderness <= 1.2
    assert shapes[4].slenderness > 10
    assert shape_groups(shapes) == {"thin": [3, 4], "small": [5], "other": [1, 2]}


def test_groups_do_not_hang_on_the_size_of_the_picture(drawn):
    fine = drawn.repeat(3, axis=0).repeat(3, axis=1)
    assert shape_groups(class_shapes([fine], range(1, 6))) == shape_groups(class_shapes([drawn], range(1, 6)))


def test_a_class_is_what_its_median_region_is(drawn):
    """One dot that a bar has cut down to a sliver does not make dots thin."""
    sliver = drawn.copy()
    sliver[:, 71:] = np.where(sliver[:, 71:] == 5, 1, sliver[:, 71:])
    assert shape_groups(class_shapes([drawn, drawn, sliver], [5])) == {"thin": [], "small": [5], "other": []}


def test_scores_are_means_over_the_classes_that_have_one():
    groups = {"thin": [3, 4], "small": [5], "other": [0]}
    found = group_scores({0: 0.5, 3: 0.2, 4: 0.4}, groups)
    assert found == pytest.approx({"thin": 0.3, "other": 0.5})
