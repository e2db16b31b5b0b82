"""The contract between data and tasks: what one batch holds.

Letters used all over the package: N images, C foreground classes, K = C + 1 channels with the
background first, H x W pixels, h x w cells of a feature map.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch takes seconds and half a gigabyte, and those who list files need only IGNORE_INDEX
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
    strong: NotRequired[Tensor]
    """(N, 3, S, S) float32, normalised: a second, independent and strongly augmented view; only when training with
    `Tags(views=2)`. `image` is then the first, weakly augmented one, and `box` its whole canvas."""


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
    pixels: Tensor
    """(H, W, 3) uint8, the image as it is on disk: colours that a CRF compares."""


class EpisodeBatch(TypedDict):
    """One-way K-shot episodes (recipe `Episodes`); S is the side that all images of an episode have."""

    id: list[str]
    """Names of the query images."""
    query_image: Tensor
    """(N, 3, S, S) float32, normalised; 0 where the image does not reach."""
    query_mask: Tensor
    """(N, S, S) int64: 1 the class, 0 everything else, 255 ignored and where the image does not reach."""
    support_images: Tensor
    """(N, K, 3, S, S) float32."""
    support_masks: Tensor
    """(N, K, S, S) int64, as `query_mask`."""
    support_id: list[list[str]]
    """N lists of K names."""
    class_id: Tensor
    """(N,) int64, the class's id in the benchmark's masks."""
    number: Tensor
    """(N,) int64, number of the episode within its split."""
    base_seed: NotRequired[Tensor]
    """(N,) int64, base seed of the episodes; only when evaluating."""


class ViewsBatch(TypedDict):
    """Several crops of each image with their geometry (recipe `Views`); view 0 and 1 are the global ones."""

    id: list[str]
    global_views: Tensor
    """(N, 2, 3, G, G) float32, normalised - or uint8 without colour changes where `colour` is there."""
    local_views: Tensor
    """(N, L, 3, S, S), as `global_views`; L may be 0."""
    box: Tensor
    """(N, 2 + L, 4) int64, x1, y1, x2, y2 of each view in pixels of the image; whole, so no precision rounds it."""
    flip: Tensor
    """(N, 2 + L) bool: mirrored left to right after cropping."""
    size: Tensor
    """(N, 2) int64, H and W of the image on disk."""
    colour: NotRequired[Tensor]
    """(N, 2 + L, P) float32, drawn parameters of the colour changes that are still to be made on the device."""


@runtime_checkable
class CountsClasses(Protocol):
    """A data module that knows how often each class occurs in its training split."""

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(C,) images per foreground class, from the image-level labels of the training split."""
        ...


@runtime_checkable
class FewShotFolds(Protocol):
    """A data module that may have few-shot folds."""

    @property
    def fold_classes(self) -> tuple[int, ...]:
        """Class ids that the fold tests, and that nothing may learn; none where there is no fold."""
        ...


@runtime_checkable
class WritesMasks(Protocol):
    """A data module that writes masks with its benchmark's palette."""

    def write_mask(self, path: Path, ids: NDArray[np.uint8], run: str) -> None:
        """Write (H, W) class ids as a palette PNG, whole or not at all, and keep in it which run made it."""
        ...


@runtime_checkable
class SkipsIds(Protocol):
    """A data module that can leave out ids whose predictions are already on disk."""

    def skip(self, ids: set[str]) -> None:
        """Leave these ids out of the next predict loader."""
        ...
