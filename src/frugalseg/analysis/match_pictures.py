"""Pictures of matched points: do the dense features of two crops agree where both show the same place?"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from frugalseg.analysis.dense_pictures import match_picture
from frugalseg.analysis.pictures import Picture, captioned
from frugalseg.data.resized_crop import resized
from frugalseg.data.view_boxes import BoxRule
from frugalseg.ops.geometry import matched_points, sample_at

BOXES = BoxRule(0, (0.4, 1.0), (0.05, 0.25), (3 / 4, 4 / 3), 0.25, 0.0)
"""How the two crops are drawn: large ones that overlap, as the global views of a pre-training."""


def crops_match(
    features: Callable[[list[Picture]], list[Tensor]],
    name: str,
    image: Picture,
    rng: np.random.Generator,
    points: int,
    side: int,
    enlarge: int,
) -> Picture:
    """Two crops of an image, perhaps mirrored, with lines between points that they share.

    Lines are blue where the features agree no better than those of unequal points do on average, red where they are
    equal.

    Args:
        features: images -> (D, h, w) of each.
        name: of the image.
        image: (H, W, 3) uint8.
        rng: draws boxes, mirroring and points.
        points: per row and column of the shared area.
        side: pixels of a crop's side.
        enlarge: times that crops are enlarged for the eye.
    """
    boxes = torch.from_numpy(BOXES.draw((image.shape[0], image.shape[1]), rng)).float()
    flips = torch.from_numpy(rng.random(2) < 0.5)
    views = [view_of(image, each.int().tolist(), bool(mirror), side) for each, mirror in zip(boxes, flips, strict=True)]
    # somewhere in their cells, as in training: points of one row would hide each other's lines
    place = torch.from_numpy(rng.random((points, points, 2))).float()
    *grids, _ = matched_points(boxes[:1], flips[:1], boxes[1:], flips[1:], points, place)
    cosines = agreement(features(views), grids)
    own, others = cosines.diagonal(), float(cosines[~np.eye(len(cosines), dtype=bool)].mean())
    ends = [(grid.reshape(-1, 2).numpy() + 1) / 2 * side for grid in grids]
    strength = ((own - others) / max(1 - others, 1e-6)).clip(0, 1)
    drawn = match_picture((views[0], views[1]), (ends[0], ends[1]), strength, enlarge)
    return captioned(drawn, f"{name}: cosine {own.mean():.2f}, of other pairs {others:.2f}")


def view_of(image: Picture, box: Sequence[int], mirror: bool, side: int) -> Picture:
    """A crop x0, y0, x1, y1 as a square, perhaps mirrored left to right."""
    view = resized(image[box[1] : box[3], box[0] : box[2]], side)
    return np.ascontiguousarray(view[:, ::-1]) if mirror else view


def agreement(maps: Sequence[Tensor], grids: Sequence[Tensor]) -> NDArray[np.float32]:
    """(M, M) cosines of points of a first with points of a second map, for M points of `matched_points` each."""
    one, two = (
        normalize(sample_at(each[None], grid)[0].flatten(1), dim=0) for each, grid in zip(maps, grids, strict=True)
    )
    return np.asarray((one.T @ two).numpy())
