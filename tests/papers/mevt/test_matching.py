"""Matched points of all pairs of views: geometry, what is left out, and independence of ranks."""

import numpy as np
import pytest
import torch

from frugalseg.ops.geometry import area, intersection, matched_points, sample_at
from frugalseg.papers.mevt import matching

SIZE = 128


def _views(images=3, local=2, seed=0):
    """Boxes of two large and some small views, and flips."""
    rng = np.random.default_rng(seed)
    boxes = np.zeros((images, 2 + local, 4))
    for b, v in np.ndindex(images, 2 + local):
        side = rng.uniform(80, 120, 2) if v < 2 else rng.uniform(40, 60, 2)
        corner = rng.uniform(0, SIZE - side)
        boxes[b, v] = *corner, *(corner + side)
    return torch.from_numpy(boxes), torch.from_numpy(rng.random((images, 2 + local)) < 0.5)


def _coordinates(box, flip, cells):
    """What an encoder sees that returns the image coordinates of its cells: (B, 2, cells, cells)."""
    steps = (torch.arange(cells, dtype=box.dtype) + 0.5) / cells
    across = torch.where(flip[:, None], 1 - steps, steps)
    x = box[:, :1] + across * (box[:, 2:3] - box[:, :1])
    y = box[:, 1:2] + steps * (box[:, 3:] - box[:, 1:2])
    return torch.stack([x[:, None].expand(-1, cells, -1), y[:, :, None].expand(-1, -1, cells)], dim=1)


def _maps(box, flip):
    return [_coordinates(box[:, v], flip[:, v], 16 if v < 2 else 8) for v in range(box.shape[1])]


def _inside(box, pairs, matches, sides):
    """Whether the points lie between the outermost cell centres of both views."""
    pair = torch.repeat_interleave(torch.arange(len(pairs)), torch.tensor([sides[v >= 2] ** 2 for _, v in pairs]))
    inside = torch.ones(len(matches.image), dtype=torch.bool)
    for side in (0, 1):
        view = torch.tensor([p[side] for p in pairs])[pair[matches.number]]
        its = box[matches.image, view]
        half = (its[:, 2:] - its[:, :2]) / torch.where(view < 2, 16, 8)[:, None] / 2
        inside &= ((matches.position > its[:, :2] + half) & (matches.position < its[:, 2:] - half)).all(dim=1)
    return inside


def test_both_sides_see_the_same_place():
    """mevt.md g.3: with an encoder that returns coordinates, both samples are the point's own in the interior."""
    box, flip = _views()
    sides, pairs = (6, 3), matching.view_pairs(2, 4)
    maps = _maps(box, flip)
    offset = matching.image_noise([5, 6, 7], len(pairs), 2)
    matches = matching.match_views(maps[:2], maps, box, flip, sides, offset)
    inside = _inside(box, pairs, matches, sides)
    assert 100 < int(inside.sum()) < len(inside)
    for side in (matches.teacher, matches.student):
        np.testing.assert_allclose(side[inside], matches.position[inside], rtol=0, atol=1e-6)
    # and a flip that is not undone would show
    wrong = matching.match_views(maps[:2], maps, box, ~flip, sides, offset)
    assert float((wrong.student[inside] - wrong.position[inside]).abs().max()) > 1


def test_points_equal_a_loop_over_images_and_pairs():
    box, flip = _views(seed=1)
    box[1, 3] = torch.tensor([200.0, 200, 260, 260])  # shares nothing
    rng = torch.Generator().manual_seed(0)
    maps = [torch.rand(3, 5, n, n, generator=rng, dtype=torch.float64) for n in (9, 9, 4, 4)]
    leading, sides = 2, (4, 2)
    pairs = matching.view_pairs(leading, 4)
    assert pairs == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]
    least = torch.tensor([0.0, 0.0, 3000.0], dtype=torch.float64)
    offset = torch.rand(3, len(pairs), 2, generator=rng, dtype=torch.float64)
    expected = {name: [] for name in matching.Matches._fields}
    left_out = 0
    for b in range(3):
        number = 0
        for index, (a, v) in enumerate(pairs):
            side = sides[v >= leading]
            views = (box[b, a][None], flip[b, a][None], box[b, v][None], flip[b, v][None])
            own, other, points = matched_points(*views, side, offset[b, index])
            kept = bool(area(intersection(box[b, a], box[b, v])) > least[b])
            left_out += not kept
            for y, x in np.ndindex(side, side):
                if kept:
                    expected["teacher"].append(sample_at(maps[a][b][None], own)[0, :, y, x])
                    expected["student"].append(sample_at(maps[v][b][None], other)[0, :, y, x])
                    expected["position"].append(points[0, y, x])
                    expected["image"].append(torch.tensor(b))
                    expected["number"].append(torch.tensor(number))
                number += 1
        assert number == matching.points_per_image(leading, 4, sides)
    assert 2 < left_out < 2 + len(pairs)
    matches = matching.match_views(maps[:leading], maps, box, flip, sides, offset, least)
    for name, rows in expected.items():
        assert torch.allclose(getattr(matches, name), torch.stack(rows), rtol=1e-12, atol=1e-12)


def test_only_the_student_gets_a_gradient():
    box, flip = _views()
    teacher = [torch.rand(3, 4, 8, 8, requires_grad=True) for _ in range(2)]
    student = [torch.rand(3, 4, 8, 8, requires_grad=True) for _ in range(4)]
    matches = matching.match_views(teacher, student, box.long(), flip, (4, 2))
    assert not matches.teacher.requires_grad
    (matches.student * matches.teacher).sum().backward()
    assert all(view.grad is None for view in teacher)
    assert all(view.grad.any() for view in student)


def test_nothing_shared_is_no_point():
    box, flip = _views()
    maps = _maps(box, flip)
    matches = matching.match_views(maps[:2], maps, box, flip, (4, 2), least=1e9)
    assert matches.teacher.shape == matches.student.shape == (0, 2)
    assert matching.choose_points(matches, torch.rand(3, 100), 5).shape == (0,)


def test_half_precision_maps_are_sampled_in_float32():
    box, flip = _views()
    maps = [view.bfloat16() for view in _maps(box, flip)]
    matches = matching.match_views(maps[:2], maps, box, flip, (4, 2))
    wide = [view.float() for view in maps]
    expected = matching.match_views(wide[:2], wide, box, flip, (4, 2))
    assert matches.student.dtype == torch.float32
    assert torch.equal(matches.student, expected.student)


@pytest.mark.parametrize("most", [0, 1, 7, 1000])
def test_chosen_points_are_those_of_lowest_priority(most):
    box, flip = _views(seed=2)
    maps = _maps(box, flip)
    least = torch.tensor([0.0, 1e9, 0.0], dtype=torch.float64)  # the second image has no points
    matches = matching.match_views(maps[:2], maps, box, flip, (4, 2), least=least)
    priority = matching.image_noise([1, 2, 3], matching.points_per_image(2, 4, (4, 2)))
    chosen = matching.choose_points(matches, priority, most)
    expected = []
    for b in range(3):
        rows = [n for n in range(len(matches.image)) if int(matches.image[n]) == b]
        expected += sorted(rows, key=lambda n: float(priority[b, int(matches.number[n])]))[:most]
    assert chosen.tolist() == sorted(expected)
    taken = matches.take(chosen)
    assert torch.equal(taken.student, matches.student[chosen])
    assert torch.equal(taken.number, matches.number[chosen])


def test_points_do_not_depend_on_the_rank():
    """The same images in one batch and in two draw and choose the same points (c.8)."""
    box, flip = _views(images=4)
    maps, seeds, sides = _maps(box, flip), [11, 12, 13, 14], (4, 2)

    def run(images):
        offset = matching.image_noise(seeds[images], len(matching.view_pairs(2, 4)), 2)
        views = [view[images] for view in maps]
        matches = matching.match_views(views[:2], views, box[images], flip[images], sides, offset)
        priority = matching.image_noise(seeds[images], matching.points_per_image(2, 4, sides))
        return matches.take(matching.choose_points(matches, priority, 9))

    whole, parts = run(slice(0, 4)), [run(slice(0, 2)), run(slice(2, 4))]
    for name in ("teacher", "student", "position", "number"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))
    assert whole.image.tolist() == [*parts[0].image.tolist(), *(2 + parts[1].image).tolist()]


def test_noise_is_the_seeds_own():
    noise = matching.image_noise([3, 4, 3], 50)
    assert torch.equal(noise[0], noise[2])
    assert float((noise[0] - noise[1]).abs().max()) > 0.1
    assert 0 <= float(noise.min()) <= float(noise.max()) < 1
    assert matching.image_noise([], 5, 2).shape == (0, 5, 2)
