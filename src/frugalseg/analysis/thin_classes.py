"""Thin and small classes, by the geometry of training masks alone: no result is looked at.

A region is 8-connected. Its width is the diameter of the largest disc inside it, its slenderness its area over that
disc's: 1 for a disc, 1.3 for a square, L / W and more for a bar of L x W. A class is what its median region is.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SLENDER = 4.0
"""Least slenderness of a thin class."""
THIN = 1 / 8
"""Greatest width of a thin class, as a share of the picture's longer side."""
SMALL = 0.02
"""Greatest area of a small class, as a share of the picture. A class that is thin is not small too."""
LEAST = 16
"""Pixels of a region that counts: fewer are what others have left of one."""

_SIDES = np.ones((3, 3), dtype=np.int64)


class Shape(NamedTuple):
    """One region.

    Attributes:
        area: as a share of the picture.
        width: as a share of its longer side.
        slenderness: area over that of the largest disc inside.
    """

    area: float
    width: float
    slenderness: float


def region_shapes(mask: NDArray[np.uint8], class_id: int) -> list[Shape]:
    """Shapes of the regions of a class.

    Distances are from a pixel's centre to the nearest centre outside, less half a pixel: to the border. What lies
    beyond the picture is outside, too.

    Args:
        mask: (H, W) class ids.
        class_id: of the class.

    Returns:
        One for each region of at least `LEAST` pixels.
    """
    regions, _ = ndimage.label(mask == class_id, structure=_SIDES)
    found = []
    for number, window in enumerate(ndimage.find_objects(regions), start=1):
        inside = regions[window] == number
        if (area := int(inside.sum())) >= LEAST:
            radius = float(ndimage.distance_transform_edt(np.pad(inside, 1)).max()) - 0.5
            found.append(Shape(area / mask.size, 2 * radius / max(mask.shape), area / (np.pi * radius**2)))
    return found


def class_shapes(masks: Iterable[NDArray[np.uint8]], classes: Iterable[int]) -> dict[int, Shape]:
    """Median shape of the regions of each class; a class without a region is left out.

    Args:
        masks: (H, W) class ids, any sizes.
        classes: ids to look at.
    """
    found: dict[int, list[Shape]] = {class_id: [] for class_id in classes}
    for mask in masks:
        for class_id, shapes in found.items():
            shapes.extend(region_shapes(mask, class_id))
    return {c: Shape(*np.median(np.array(shapes), axis=0).tolist()) for c, shapes in found.items() if shapes}


def shape_groups(shapes: Mapping[int, Shape]) -> dict[str, list[int]]:
    """Thin, small and other classes.

    Args:
        shapes: of each class.

    Returns:
        `thin`, `small` and `other` -> sorted class ids; each class is in one of them.
    """
    groups: dict[str, list[int]] = {"thin": [], "small": [], "other": []}
    for class_id, shape in sorted(shapes.items()):
        thin = shape.slenderness >= SLENDER and shape.width <= THIN
        groups["thin" if thin else "small" if shape.area <= SMALL else "other"].append(class_id)
    return groups


def group_scores(iou: Mapping[int, float], groups: Mapping[str, list[int]]) -> dict[str, float]:
    """Mean IoU of each group.

    Args:
        iou: class id -> IoU.
        groups: group -> class ids.

    Returns:
        Group -> mean over its classes that have an IoU; a group without any is left out.
    """
    found = {name: [iou[c] for c in ids if c in iou] for name, ids in groups.items()}
    return {name: float(np.mean(values)) for name, values in found.items() if values}
