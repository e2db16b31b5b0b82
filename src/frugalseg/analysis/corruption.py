"""Spoiling true masks on purpose: what a refinement of labels is measured with.

Masks are (H, W) class ids, 0 the background, 255 unknown.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from frugalseg.batch import IGNORE_INDEX

Mask = NDArray[np.uint8]


def without_void(mask: NDArray[np.integer]) -> Mask:
    """Give unknown pixels the class of the nearest known one; VOC leaves seams around its objects unknown.

    Raises:
        ValueError: nothing is known.
    """
    void = mask == IGNORE_INDEX
    if void.all():
        raise ValueError("a mask without a single known pixel cannot be filled")
    rows, columns = distance_transform_edt(void, return_distances=False, return_indices=True)
    return np.asarray(mask[rows, columns], dtype=np.uint8)


def resized_by(region: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """Grow a region by a disc of so many pixels, or shrink it where negative; the image's border does not shrink it."""
    if pixels >= 0:
        # an empty region is infinitely far away, which scipy does not say
        return np.asarray(distance_transform_edt(~region) <= pixels) if region.any() else region.copy()
    return np.asarray(distance_transform_edt(region) > -pixels) if not region.all() else region.copy()


def moved(region: NDArray[np.bool_], dy: int, dx: int) -> NDArray[np.bool_]:
    """Shift a region; what leaves the image is lost."""
    height, width = region.shape
    wide, top, left = np.pad(region, ((abs(dy), abs(dy)), (abs(dx), abs(dx)))), abs(dy) - dy, abs(dx) - dx
    return np.asarray(wide[top : top + height, left : left + width])


def corrupted(mask: NDArray[np.integer], rng: np.random.Generator, radius: int = 8, shift: int = 8) -> Mask:
    """Grow or shrink every class of a mask and move it, by amounts drawn for each class.

    Classes are painted in a random order, so that any of two neighbours may cover the other. A small object may vanish.

    Args:
        mask: true ids; unknown pixels count as the nearest known class.
        rng: draws, per class, a radius in -radius..radius and a shift in -shift..shift along each axis, in pixels.
        radius: largest growth or shrinkage.
        shift: largest movement.

    Returns:
        (H, W) uint8 without unknown pixels.
    """
    filled = without_void(mask)
    result = np.zeros_like(filled)
    for class_id in rng.permutation(np.unique(filled[filled > 0])):
        growth = int(rng.integers(-radius, radius + 1))
        dy, dx = (int(step) for step in rng.integers(-shift, shift + 1, size=2))
        result[moved(resized_by(filled == class_id, growth), dy, dx)] = class_id
    return result


def boundary_cells(mask: NDArray[np.integer], stride: int = 4) -> NDArray[np.float32]:
    """Cells that a boundary between classes runs through: walls that no path of cells gets around.

    A boundary between two cells counts for the upper or left one, so that walls are as thin as they can be.

    Args:
        mask: ids; unknown pixels count as the nearest known class.
        stride: pixels per cell.

    Returns:
        (ceil(H / stride), ceil(W / stride)), 1 on boundaries and 0 elsewhere.
    """
    filled = without_void(mask)
    differs = np.zeros(filled.shape, dtype=np.float32)
    differs[:, :-1] += filled[:, :-1] != filled[:, 1:]
    differs[:-1] += filled[:-1] != filled[1:]
    cells = F.max_pool2d(torch.from_numpy(differs)[None], stride, ceil_mode=True)[0]
    return np.asarray(cells.clamp(max=1).numpy(), dtype=np.float32)
