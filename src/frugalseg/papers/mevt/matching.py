"""Features of matched points of all pairs of views (mevt.md c.2, c.7): features are sampled first, heads come after."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from frugalseg.ops.geometry import area, intersection, matched_points, sample_at
from frugalseg.ops.precision import at_least_float32


class Matches(NamedTuple):
    """N pairs of points, one in a teacher's and one in a student's view, that show the same place of an image.

    Ordered by image, then by `number`.
    """

    teacher: Tensor
    """(N, D) features, without a gradient."""
    student: Tensor
    """(N, D) features."""
    image: Tensor
    """(N,) int64, number of the image in the batch."""
    position: Tensor
    """(N, 2) x, y in pixels of the image."""
    number: Tensor
    """(N,) int64, number of the point among all points of an image none of whose pairs is left out."""

    def take(self, chosen: Tensor) -> "Matches":
        """Some of the points.

        Args:
            chosen: (M,) int64 their indices.
        """
        return Matches(*(part[chosen] for part in self))


class _Pair(NamedTuple):
    """Geometry of one pair of views in B images."""

    teacher_view: int
    student_view: int
    teacher_grid: Tensor
    student_grid: Tensor
    points: Tensor
    kept: Tensor


def view_pairs(teacher_views: int, views: int) -> list[tuple[int, int]]:
    """Ordered pairs (teacher's view a, student's view v) with v != a; the teacher's views are the first ones."""
    return [(a, v) for a in range(teacher_views) for v in range(views) if v != a]


def points_per_image(teacher_views: int, views: int, sides: tuple[int, int]) -> int:
    """Number of points of an image none of whose pairs is left out; `sides` as for `match_views`."""
    return sum(sides[v >= teacher_views] ** 2 for _, v in view_pairs(teacher_views, views))


def image_noise(seeds: Sequence[int], *shape: int) -> Tensor:
    """Uniform numbers in [0, 1) that depend on an image's seed alone, not on its batch or rank (mevt.md c.8).

    Args:
        seeds: one per image.
        shape: of the numbers of one image.

    Returns:
        (B, *shape) float32 in main memory.
    """
    drawn = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn) if drawn else torch.empty(0, *shape)


def match_views(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    box: Tensor,
    flip: Tensor,
    sides: tuple[int, int] = (14, 7),
    offset: Tensor | None = None,
    least: Tensor | float = 0.0,
) -> Matches:
    """Sample the features of both sides at a grid of points over what each pair of views shares.

    Args:
        teacher: maps (B, D, h, w) of the A global views, each of any size.
        student: maps (B, D, h, w) of all V views, the global ones first.
        box: (B, V, 4) x1, y1, x2, y2 of the views in pixels of the image.
        flip: (B, V) bool, mirrored left to right after cropping.
        sides: points per row and column, for two global views and for all other pairs.
        offset: (B, P, 2) place of the points in their cells, x and y in [0, 1), for the P pairs of `view_pairs`; None
            for the centres.
        least: an image is left out of a pair that does not share more than this area, in square pixels; one for all or
            (B,).
    """
    pairs = _pairs(len(teacher), box, flip, sides, offset, least)
    own = _sample(teacher, [(pair.teacher_view, pair.teacher_grid) for pair in pairs], detach=True)
    other = _sample(student, [(pair.student_view, pair.student_grid) for pair in pairs], detach=False)
    kept = torch.cat([pair.kept[:, None].expand(pair.points.shape[:2]) for pair in pairs], dim=1)
    image, number = kept.nonzero(as_tuple=True)
    position = torch.cat([pair.points for pair in pairs], dim=1)
    return Matches(own[image, number], other[image, number], image, position[image, number], number)


def choose_points(matches: Matches, priority: Tensor, most: int) -> Tensor:
    """The points of each image with the lowest priorities, at most so many: a random subset that ranks do not change.

    Args:
        matches: the points.
        priority: (B, points per image) in [0, 1), such as `image_noise`; the same number is the same point's.
        most: points per image.

    Returns:
        (M,) indices of the chosen points, in ascending order.
    """
    values = priority.to(matches.image.device, non_blocking=True)[matches.image, matches.number]
    # two stable sorts: by priority, then by image
    order = values.argsort(stable=True)
    order = order[matches.image[order].argsort(stable=True)]
    # points are ordered by image: where each image's begin, which unlike their number is found without waiting
    begin = torch.searchsorted(matches.image.contiguous(), torch.arange(len(priority), device=order.device))
    place = torch.arange(len(order), device=order.device) - begin[matches.image[order]]
    return order[place < most].sort().values


def _pairs(
    leading: int,
    box: Tensor,
    flip: Tensor,
    sides: tuple[int, int],
    offset: Tensor | None,
    least: Tensor | float,
) -> list[_Pair]:
    """Geometry of all pairs, (B, S * S, 2) each."""
    found = []
    offset = None if offset is None else offset.to(box.device, non_blocking=True)
    for index, (a, v) in enumerate(view_pairs(leading, box.shape[1])):
        place = None if offset is None else offset[:, index, None, None]
        one, other, points = matched_points(box[:, a], flip[:, a], box[:, v], flip[:, v], sides[v >= leading], place)
        kept = area(intersection(box[:, a], box[:, v])) > least
        found.append(_Pair(a, v, one.flatten(1, 2), other.flatten(1, 2), points.flatten(1, 2), kept))
    return found


def _sample(maps: Sequence[Tensor], wanted: list[tuple[int, Tensor]], detach: bool) -> Tensor:
    """Features at (B, n, 2) coordinates of given views, (B, sum of n, D), reading each map once for all its pairs."""
    parts: dict[int, Tensor] = {}
    for view, features in enumerate(maps):
        mine = [index for index, (which, _) in enumerate(wanted) if which == view]
        if not mine:
            continue
        grid = torch.cat([wanted[index][1] for index in mine], dim=1)
        full = at_least_float32(features.detach() if detach else features)
        values = sample_at(full, grid[:, :, None].to(full.dtype))[..., 0].transpose(1, 2)
        lengths = [wanted[index][1].shape[1] for index in mine]
        parts.update(zip(mine, torch.split(values, lengths, dim=1), strict=True))
    return torch.cat([parts[index] for index in range(len(wanted))], dim=1)
