"""Boxes of multi-crop views: drawn as random resized crops, redrawn until views overlap enough to be matched."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in image pixels, end exclusive."""
Span = tuple[float, float]

_SHAPES, _TRIES = 10, 50


@dataclass(frozen=True)
class BoxRule:
    """Which boxes the views of an image may have.

    Attributes:
        local_views: number of local views.
        global_area: part of the image's area that a global view takes, uniform in lo..hi.
        local_area: the same for local views.
        aspect: width over height, log-uniform in lo..hi.
        overlap_global: the two global views share more than this part of the image's area.
        overlap_local: every local view shares more than this part with either global view; at most `overlap_global`.
    """

    local_views: int
    global_area: Span
    local_area: Span
    aspect: Span
    overlap_global: float
    overlap_local: float

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw one box per view, the global ones first.

        A view that overlaps too little is redrawn, up to 50 times. After that the whole image takes its place - of both
        global views, or of the local one. That always satisfies the rule: two whole images share everything, and a
        global view that shares more than `overlap_global` with the other one shares at least that with the whole image.

        Args:
            size: (H, W) of the image.
            rng: source of randomness.

        Returns:
            (2 + local_views, 4) int64 rows x1, y1, x2, y2.
        """
        whole: Box = (0, 0, size[1], size[0])
        least = size[0] * size[1] * self.overlap_global
        first = random_box(size, self.global_area, self.aspect, rng)
        second = self._redrawn(size, self.global_area, [first], least, rng)
        views = [whole, whole] if second is None else [first, second]
        least = size[0] * size[1] * self.overlap_local
        for _ in range(self.local_views):
            views.append(self._redrawn(size, self.local_area, views[:2], least, rng) or whole)
        return np.array(views, np.int64)

    def _redrawn(
        self, size: tuple[int, int], area: Span, others: Sequence[Box], least: float, rng: np.random.Generator
    ) -> Box | None:
        for _ in range(_TRIES):
            box = random_box(size, area, self.aspect, rng)
            if all(shared_area(box, other) > least for other in others):
                return box
        return None


def random_box(size: tuple[int, int], area: Span, aspect: Span, rng: np.random.Generator) -> Box:
    """Draw one box.

    As torchvision's RandomResizedCrop: area and aspect are redrawn, up to 10 times, until the box fits. In an image too
    long for any, the last area is kept and the aspect gives way.

    Args:
        size: (H, W) of the image.
        area: part of the image's area, lo..hi.
        aspect: width over height, lo..hi.
        rng: source of randomness.
    """
    height, width = size
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(_SHAPES):
        part, shape, across, down = rng.random(4).tolist()
        pixels = height * width * (area[0] + part * (area[1] - area[0]))
        ratio = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        ratio = min(max(ratio, pixels / height**2), width**2 / pixels)
        w = min(max(round(math.sqrt(pixels * ratio)), 1), width)
        h = min(max(round(math.sqrt(pixels / ratio)), 1), height)
    x, y = int(across * (width - w + 1)), int(down * (height - h + 1))
    return x, y, x + w, y + h


def shared_area(a: Box, b: Box) -> int:
    """Pixels that two boxes share.

    Args:
        a: a box.
        b: another one.
    """
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
