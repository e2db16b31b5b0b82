"""Boxes and matched points of two crops of one image.

Boxes are x1, y1, x2, y2 in image pixels, edges at whole numbers: pixel (0, 0) is the square from 0 to 1, its centre at
0.5. A crop may be mirrored left to right after it was cut out.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """What two boxes share.

    Args:
        a: (..., 4) boxes.
        b: (..., 4) boxes, broadcast against `a`.

    Returns:
        (..., 4); a box of area 0 where they share nothing.
    """
    lower = torch.maximum(a[..., :2], b[..., :2])
    upper = torch.minimum(a[..., 2:], b[..., 2:])
    return torch.cat([lower, torch.maximum(lower, upper)], dim=-1)


def area(box: Tensor) -> Tensor:
    """Area of boxes.

    Args:
        box: (..., 4).

    Returns:
        (...), square pixels.
    """
    return (box[..., 2:] - box[..., :2]).prod(dim=-1)


def in_crop(points: Tensor, box: Tensor, size: float | Tensor = 1.0) -> Tensor:
    """Image coordinates as coordinates in a crop that was resized to a square; mirroring is not applied.

    Args:
        points: (..., 2) points x, y or (..., 4) boxes, in image pixels.
        box: (..., 4) the crop, broadcast against `points`.
        size: side of the resized crop in pixels; a tensor must broadcast against the result.

    Returns:
        The shape of `points`: size * (p - corner) / side of the crop.
    """
    corner, side = box[..., :2], box[..., 2:] - box[..., :2]
    if points.shape[-1] == 4:
        corner, side = torch.cat([corner, corner], dim=-1), torch.cat([side, side], dim=-1)
    return size * (points - corner) / side


def sampling_grid(points: Tensor, box: Tensor, flip: Tensor) -> Tensor:
    """Image points as coordinates for `sample_at` in a crop's feature map.

    Args:
        points: (N, S, S, 2) x, y in image pixels.
        box: (N, 4) crops.
        flip: (N,) bool, mirrored left to right after cropping.

    Returns:
        (N, S, S, 2): -1 is the left or upper edge of the crop, 1 the right or lower one.
    """
    grid = 2 * in_crop(points, box[:, None, None]) - 1
    x, y = grid.unbind(dim=-1)
    return torch.stack([torch.where(flip[:, None, None], -x, x), y], dim=-1)


def matched_points(
    box_a: Tensor, flip_a: Tensor, box_b: Tensor, flip_b: Tensor, side: int, offset: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A grid of points over what two crops of one image share, one point per cell.

    Where the crops share nothing (`area(intersection(...)) == 0`) the points mean nothing; leave such pairs out.

    Args:
        box_a: (N, 4) first crops, float or whole numbers (then the result is float32).
        flip_a: (N,) bool.
        box_b: (N, 4) second crops.
        flip_b: (N,) bool.
        side: S, points per row and per column.
        offset: place of the points in their cells, x and y in [0, 1), broadcast against (N, S, S, 2); None for centres.

    Returns:
        For `sample_at` in the first crops (N, S, S, 2), the same in the second ones, and the points in image pixels.
    """
    if not box_a.is_floating_point():
        box_a, box_b = box_a.float(), box_b.float()
    shared = intersection(box_a, box_b)[:, None, None]
    steps = torch.arange(side, dtype=box_a.dtype, device=box_a.device)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    cells = torch.stack([columns, rows], dim=-1) + (0.5 if offset is None else offset)
    points = shared[..., :2] + cells / side * (shared[..., 2:] - shared[..., :2])
    return sampling_grid(points, box_a, flip_a), sampling_grid(points, box_b, flip_b), points


def sample_at(features: Tensor, grid: Tensor) -> Tensor:
    """Bilinear values of feature maps at points; beyond the outermost cell centres the border value goes on.

    Args:
        features: (N, D, h, w).
        grid: (N, S, S, 2) of `matched_points`.

    Returns:
        (N, D, S, S).
    """
    return F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)
