"""Random crops onto a canvas that remember where the image's pixels are; plain NumPy."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Placement(NamedTuple):
    """Where a crop comes from and where it goes.

    Attributes:
        source: slices (rows, columns) of the image.
        target: slices of the canvas, of the same size.
        size: (H, W) of the canvas.
    """

    source: tuple[slice, slice]
    target: tuple[slice, slice]
    size: tuple[int, int]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """y0, x0, y1, x1 (end exclusive) of the image's pixels on the canvas."""
        rows, columns = self.target
        return rows.start, columns.start, rows.stop, columns.stop


def random_placement(
    size: tuple[int, int], crop: int, rng: np.random.Generator, keep: tuple[int, int] | None = None
) -> Placement:
    """Draw a crop x crop window; each axis is drawn by itself.

    An axis longer than the crop is cut at a random offset; a shorter one is placed at a random offset.

    Args:
        size: (H, W) of the image.
        crop: side S of the canvas.
        rng: source of randomness.
        keep: row and column of a pixel that must not be cut off.
    """
    points = keep or (None, None)
    axes = [_axis(length, crop, rng, point) for length, point in zip(size, points, strict=True)]
    (source_y, target_y), (source_x, target_x) = axes
    return Placement((source_y, source_x), (target_y, target_x), (crop, crop))


def whole(size: tuple[int, int]) -> Placement:
    """The whole image on a canvas of its own size.

    Args:
        size: (H, W) of the image.
    """
    both = slice(0, size[0]), slice(0, size[1])
    return Placement(both, both, size)


def top_left(size: tuple[int, int], side: int) -> Placement:
    """The whole image in the upper left corner of a square canvas.

    Args:
        size: (H, W) of the image, neither above `side`.
        side: S of the canvas.
    """
    both = slice(0, size[0]), slice(0, size[1])
    return Placement(both, both, (side, side))


def _axis(length: int, crop: int, rng: np.random.Generator, keep: int | None = None) -> tuple[slice, slice]:
    low, high = 0, abs(length - crop)
    if length > crop and keep is not None:
        low, high = max(low, keep - crop + 1), min(high, keep)
    offset = int(rng.integers(low, high + 1))
    if length > crop:
        return slice(offset, offset + crop), slice(0, crop)
    return slice(0, length), slice(offset, offset + length)


def clear_border(canvas: NDArray[np.float32], placement: Placement) -> None:
    """Write 0 outside the placement's box.

    Args:
        canvas: (..., H, W), changed in place; the caller writes the box.
        placement: where the image goes.
    """
    y0, x0, y1, x1 = placement.box
    # only the border: clearing pixels that are written next costs as much as writing them
    canvas[..., :y0, :] = 0
    canvas[..., y1:, :] = 0
    canvas[..., y0:y1, :x0] = 0
    canvas[..., y0:y1, x1:] = 0


def place_mask(mask: NDArray[np.uint8], placement: Placement, fill: int) -> NDArray[np.int64]:
    """Lay a mask on a canvas.

    Args:
        mask: (H, W) uint8.
        placement: where it goes.
        fill: value outside the box.

    Returns:
        (S, S) int64.
    """
    canvas = np.full(placement.size, fill, np.int64)
    canvas[placement.target] = mask[placement.source]
    return canvas
