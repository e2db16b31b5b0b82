import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import roi_align

from frugalseg.ops.geometry import area, in_crop, intersection, matched_points, sample_at, sampling_grid

coordinate = st.floats(-50, 50)
length = st.floats(0.5, 60)


@st.composite
def boxes(draw):
    x, y = draw(coordinate), draw(coordinate)
    return torch.tensor([[x, y, x + draw(length), y + draw(length)]], dtype=torch.float64)


@st.composite
def overlapping(draw):
    """Two boxes that share at least their common point."""
    x, y = draw(coordinate), draw(coordinate)
    return [
        torch.tensor([[x - draw(length), y - draw(length), x + draw(length), y + draw(length)]], dtype=torch.float64)
        for _ in range(2)
    ]


flags = st.booleans().map(lambda value: torch.tensor([value]))


@pytest.mark.golden
def test_golden_boxes(golden):
    data = golden("ssl/crop_boxes")
    boxes, sizes = torch.from_numpy(data["abs_boxes"]), torch.from_numpy(data["crop_sizes"])
    shared = intersection(boxes[:2, None], boxes[None])
    ours = in_crop(shared, boxes[:2, None], sizes[:2, None, None])
    assert torch.allclose(ours, torch.from_numpy(data["global_side"]), rtol=0, atol=1e-4)
    theirs = in_crop(shared, boxes[None], sizes[None, :, None]).transpose(0, 1)
    assert torch.allclose(theirs, torch.from_numpy(data["other_side"]), rtol=0, atol=1e-4)


@pytest.mark.golden
def test_golden_region(golden):
    """What torchvision's op makes of a region in feature cells: the convention of cells that a region head must share."""
    data = golden("ssl/crop_boxes")
    features, roi, expected = (torch.from_numpy(data[key]) for key in ("feat", "roi", "roi_align_7"))
    aligned = roi_align(features, [roi[None]], expected.shape[-1], aligned=True)
    assert torch.allclose(aligned, expected, rtol=0, atol=1e-5)
    # ours, averaged over the op's adaptive number of samples per cell, where that is the same along both axes
    size = features.shape[-1]
    crop, no = torch.tensor([[0.0, 0, size, size]]), torch.tensor([False])
    counts = [int(np.ceil(float(roi[axis + 2] - roi[axis]) / expected.shape[-1])) for axis in (0, 1)]
    if counts[0] == counts[1]:
        grid, *_ = matched_points(crop, no, roi[None], no, expected.shape[-1] * counts[0])
        fine = sample_at(features, grid)
        ours = torch.nn.functional.avg_pool2d(fine, counts[0])
        assert torch.allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.golden
def test_golden_points(golden):
    data = {key: torch.from_numpy(value) for key, value in golden("ssl/crop_points").items()}
    side = int(data["grid_S"])
    cases = sorted(key.removeprefix("flip_") for key in data if key.startswith("flip_"))
    assert cases
    for case in cases:
        flip_a, flip_b = data[f"flip_{case}"].bool()
        grid_a, grid_b, points = matched_points(
            data["box_a"][None], flip_a[None], data["box_b"][None], flip_b[None], side
        )
        expected = torch.stack([data["img_points_x"], data["img_points_y"]], dim=-1)
        assert torch.allclose(points[0], expected, rtol=1e-9, atol=1e-9)
        sampled = {}
        for name, grid in (("a", grid_a), ("b", grid_b)):
            assert torch.allclose(grid[0], data[f"grid_{name}_{case}"], rtol=1e-9, atol=1e-9)
            sampled[name] = sample_at(data[f"feat_{name}_{case}"], grid)[0]
            assert torch.allclose(sampled[name], data[f"sample_{name}_{case}"], rtol=1e-9, atol=1e-9)
        inside = data[f"interior_{case}"]
        assert torch.allclose(sampled["a"][:, inside], sampled["b"][:, inside], rtol=0, atol=1e-12)


def slow_points(a, flip_a, b, flip_b, side, offset):
    """One image, point by point."""
    left, top, right, bottom = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    grids, points = np.zeros((2, side, side, 2)), np.zeros((side, side, 2))
    for row in range(side):
        for column in range(side):
            x = left + (right - left) * (column + offset[0]) / side
            y = top + (bottom - top) * (row + offset[1]) / side
            points[row, column] = x, y
            for grid, box, flip in ((grids[0], a, flip_a), (grids[1], b, flip_b)):
                u, v = (x - box[0]) / (box[2] - box[0]), (y - box[1]) / (box[3] - box[1])
                grid[row, column] = 2 * (1 - u if flip else u) - 1, 2 * v - 1
    return grids[0], grids[1], points


def test_points_of_a_batch_equal_a_loop():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 30, (2, 6, 2))
    box = np.concatenate([corner, corner + rng.uniform(31, 80, (2, 6, 2))], axis=-1)
    flip = rng.random((2, 6)) < 0.5
    offset = rng.random((6, 2))
    for given_offset, used in ((None, np.full((6, 2), 0.5)), (torch.from_numpy(offset)[:, None, None], offset)):
        tensors = (torch.from_numpy(part[index]) for index in (0, 1) for part in (box, flip))
        found = matched_points(*tensors, 4, given_offset)
        for n in range(6):
            expected = slow_points(box[0, n], flip[0, n], box[1, n], flip[1, n], 4, used[n])
            for one, other in zip(found, expected, strict=True):
                assert np.allclose(one[n], other, atol=1e-12)


@given(boxes(), boxes())
def test_intersection_is_symmetric_and_inside(a, b):
    shared = intersection(a, b)
    assert torch.equal(shared, intersection(b, a))
    assert torch.equal(intersection(a, a), a)
    if area(shared) > 0:
        for box in (a, b):
            assert (shared[:, :2] >= box[:, :2]).all()
            assert (shared[:, 2:] <= box[:, 2:]).all()
    apart = bool((a[:, :2] >= b[:, 2:]).any() or (b[:, :2] >= a[:, 2:]).any())
    assert (float(area(shared)) == 0) == apart


@given(overlapping(), flags, flags, st.integers(1, 5), st.floats(0, 0.999))
def test_points_lie_in_both_boxes_each_in_its_cell(pair, flip_a, flip_b, side, offset):
    a, b = pair
    at = torch.full((1, 1, 1, 2), offset, dtype=torch.float64)
    grid_a, grid_b, points = matched_points(a, flip_a, b, flip_b, side, at)
    shared = intersection(a, b)[:, None, None]
    cells = in_crop(points, shared, side)
    steps = torch.arange(side, dtype=torch.float64)
    assert torch.allclose(cells[0, :, :, 0], (steps + offset).expand(side, side), atol=1e-6)
    assert torch.allclose(cells[0, :, :, 1], (steps + offset)[:, None].expand(side, side), atol=1e-6)
    for grid in (grid_a, grid_b):
        assert grid.abs().max() <= 1 + 1e-6


@given(overlapping(), flags, flags)
def test_mirroring_twice_changes_nothing(pair, flip_a, flip_b):
    a, b = pair
    grid, _, points = matched_points(a, flip_a, b, flip_b, 3)
    mirrored, _, same = matched_points(a, ~flip_a, b, flip_b, 3)
    assert torch.equal(points, same)
    assert torch.equal(sampling_grid(points, a, flip_a), grid)
    assert torch.equal(mirrored * torch.tensor([-1, 1]), grid)
    features = torch.rand(1, 2, 6, 5, dtype=torch.float64)
    assert torch.allclose(sample_at(features, grid), sample_at(features.flip(-1), mirrored), atol=1e-12)


@given(boxes(), boxes(), st.integers(1, 300))
def test_in_crop_maps_corners_and_can_be_undone(points, crop, size):
    assert torch.allclose(in_crop(crop, crop, size), torch.tensor([[0.0, 0, size, size]], dtype=torch.float64))
    there = in_crop(points, crop, size)
    back = crop[:, :2].repeat(1, 2) + there / size * (crop[:, 2:] - crop[:, :2]).repeat(1, 2)
    assert torch.allclose(back, points, atol=1e-9)
    assert torch.equal(there[:, :2], in_crop(points[:, :2], crop, size))


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_coordinates_as_features_agree_inside(flips):
    """A network that returns where it looks: two crops of different size and shape say the same at matched points."""
    a, b = torch.tensor([[10.0, 5, 110, 85]]), torch.tensor([[50.0, 25, 130, 115]])
    sampled = []
    grids = matched_points(a, torch.tensor([flips[0]]), b, torch.tensor([flips[1]]), 7)
    for box, flip, cells, grid in ((a, flips[0], 16, grids[0]), (b, flips[1], 9, grids[1])):
        x = box[0, 0] + (torch.arange(cells) + 0.5) / cells * (box[0, 2] - box[0, 0])
        y = box[0, 1] + (torch.arange(cells) + 0.5) / cells * (box[0, 3] - box[0, 1])
        features = torch.stack([x.expand(cells, cells), y[:, None].expand(cells, cells)])[None]
        sampled.append(sample_at(features.flip(-1) if flip else features, grid))
        inside = (grid.abs() <= 1 - 1 / cells).all(dim=-1)
        at = grids[2].permute(0, 3, 1, 2)
        assert inside.sum() >= 25
        assert torch.allclose(sampled[-1] * inside[:, None], at * inside[:, None], atol=1e-4)
