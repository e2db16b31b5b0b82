"""Boundary IoU: intersection over union of what lies close to the contours of two masks.

Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021, for semantic masks:
counts are per class and summed over images before they are divided. The boundary region of a class is its mask minus
the erosion of that mask by `boundary_width` pixels; the border of the image is a boundary too.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def boundary_width(size: tuple[int, int], share: float = 0.02) -> int:
    """How many pixels a boundary region is wide.

    Args:
        size: (H, W) of the image.
        share: of the image's diagonal.

    Returns:
        `share` of the diagonal, rounded, at least 1.
    """
    return max(1, round(share * math.hypot(*size)))


def boundary_region(labels: Tensor, width: int) -> Tensor:
    """Pixels that the erosion of their own class by a square takes away, for all classes at once.

    Args:
        labels: (H, W) integer ids.
        width: w, in pixels; the square has 2w + 1 of them on a side.

    Returns:
        (H, W) bool: whether the square around a pixel holds another id or leaves the image.

    Raises:
        ValueError: width below 1, or not two dimensions.
    """
    if width < 1 or labels.ndim != 2:
        raise ValueError(f"boundary_region needs (H, W) ids and a width from 1, got {tuple(labels.shape)}, {width}")
    if not labels.numel():
        return torch.zeros_like(labels, dtype=torch.bool)
    # a square is of one id where all 2x2 blocks in it are; those that stick out of the image never are
    height, breadth = labels.shape
    mixed = torch.ones(height + 2 * width - 1, breadth + 2 * width - 1, dtype=torch.bool, device=labels.device)
    corner = labels[:-1, :-1]
    differs = (corner != labels[1:, :-1]) | (corner != labels[:-1, 1:]) | (corner != labels[1:, 1:])
    mixed[width : width + height - 1, width : width + breadth - 1] = differs
    return _any_of(_any_of(mixed, 2 * width, 0), 2 * width, 1)


def _any_of(flags: Tensor, count: int, dim: int) -> Tensor:
    """Whether any of `count` neighbours along a dimension is set; runs double in length, so there are log2(count)."""
    length = 1
    while length < count:
        step = min(length, count - length)
        rest = flags.shape[dim] - step
        flags = flags.narrow(dim, 0, rest) | flags.narrow(dim, step, rest)
        length += step
    return flags


def boundary_counts(
    pred: Tensor, target: Tensor, num_classes: int, width: int | None = None, ignore_index: int = 255
) -> Tensor:
    """Pixels of boundary regions by class.

    Pixels that the target ignores belong to no class, in the prediction either: one that equals the target everywhere
    else has its contours where the target has them.

    Args:
        pred: (H, W) integer class ids, each in 0..K-1 wherever `target` counts.
        target: (H, W) true ids; pixels equal to `ignore_index` do not count.
        num_classes: K.
        width: of the regions in pixels; None for `boundary_width`.
        ignore_index: value of `target` that is left out.

    Returns:
        (3, K) int64: pixels in both regions of a class, in the target's, in the prediction's.

    Raises:
        ValueError: shapes differ, or an id that counts lies outside 0..K-1.
    """
    if pred.shape != target.shape or pred.ndim != 2:
        raise ValueError(f"prediction and target must be (H, W) alike, got {tuple(pred.shape)}, {tuple(target.shape)}")
    keep = target != ignore_index
    width = boundary_width((target.shape[0], target.shape[1])) if width is None else width
    for name, ids in (("target", target), ("prediction", pred)):
        known = torch.where(keep, ids, 0)
        if ids.numel() and not (int(known.min()) >= 0 and int(known.max()) < num_classes):
            raise ValueError(f"{name} holds ids outside 0..{num_classes - 1}")
    # K is no class: it parts what counts from what does not
    target, pred = (torch.where(keep, ids.long(), num_classes) for ids in (target, pred))
    near = [keep & boundary_region(ids, width) for ids in (target, pred)]
    counted = [(near[0] & near[1] & (target == pred), target), (near[0], target), (near[1], pred)]
    cells = [torch.where(where, ids, num_classes).flatten() for where, ids in counted]
    return torch.stack([torch.bincount(ids, minlength=num_classes + 1)[:-1] for ids in cells])


def boundary_iou(counts: Tensor | NDArray[np.integer]) -> NDArray[np.float64]:
    """Boundary IoU per class.

    Args:
        counts: (3, K), see `boundary_counts`; those of several images are summed first.

    Returns:
        (K,) float64; NaN for a class that occurs neither in the truth nor in the prediction.
    """
    both, truth, pred = np.asarray(counts.cpu() if isinstance(counts, Tensor) else counts).astype(np.int64)
    union = truth + pred - both
    scores: NDArray[np.float64] = np.where(union > 0, both / np.maximum(union, 1), np.nan)
    return scores
