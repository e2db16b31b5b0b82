"""The contract between data and tasks: what one batch holds.

Letters used all over the package: N images, C foreground classes, K = C + 1 channels with the
background first, H x W pixels, h x w cells of a feature map.
"""

from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

IGNORE_INDEX = 255
"""Mask value that no metric and no loss looks at."""


class TagBatch(TypedDict):
    """Images with image-level labels (recipe `Tags`)."""

    id: list[str]
    image: Tensor
    """(N, 3, H, W) float32, normalised; exactly 0 outside `box`."""
    tags: Tensor
    """(N, C) float32, 1 where the class occurs; background is not a tag."""
    box: Tensor
    """(N, 4) int64, rows y0, x0, y1, x1 (end exclusive) of the pixels that come from the image."""
    mask: NotRequired[Tensor]
    """(N, H, W) int64, 0 background, 255 ignored; only when evaluating and where a mask exists."""


class SegBatch(TypedDict):
    """Images with masks (recipe `Segment`)."""

    id: list[str]
    image: Tensor
    """(N, 3, H, W) float32, normalised; exactly 0 outside `box`."""
    mask: Tensor
    """(N, H, W) int64, 0 background, 255 ignored and outside `box`."""
    box: Tensor
    """(N, 4) int64, rows y0, x0, y1, x1 (end exclusive)."""


class ScalesBatch(TypedDict):
    """One image at several scales, each with its mirror image (recipe `MultiScale`)."""

    id: list[str]
    """One id: images of different size cannot share a batch."""
    images: list[Tensor]
    """Per scale (2, 3, H_s, W_s) float32: the image and its horizontal mirror image."""
    tags: NotRequired[Tensor]
    """(1, C) float32, where the benchmark has image-level labels."""
    size: tuple[int, int]
    """(H, W) of the image on disk."""


@runtime_checkable
class CountsClasses(Protocol):
    """A data module that knows how often each class occurs in its training split."""

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(C,) images per foreground class, from the image-level labels of the training split."""
        ...


@runtime_checkable
class SkipsIds(Protocol):
    """A data module that can leave out ids whose predictions are already on disk."""

    def skip(self, ids: set[str]) -> None:
        """Leave these ids out of the next predict loader."""
        ...
