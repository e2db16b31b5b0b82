"""Confusion matrices of integers, and the scores that are read off them.

Counts are summed over images and ranks and only then divided: the mean IoU of a data set is not a mean over
images. PASCAL VOC development kit, section 4.4; sfc.md section 9.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def confusion_matrix(pred: Tensor, target: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Count pixels by (true class, predicted class).

    Args:
        pred: integer class ids, any shape, each in 0..num_classes-1 wherever `target` counts.
        target: true ids, same shape; pixels equal to `ignore_index` do not count.
        num_classes: number of classes K, background included.
        ignore_index: value of `target` that is left out.

    Returns:
        (K, K) int64, row = true class, column = predicted class.

    Raises:
        ValueError: shapes differ, or an id that counts lies outside 0..K-1.
        TypeError: floating-point ids.
    """
    if pred.shape != target.shape:
        raise ValueError(f"prediction and target differ in shape: {tuple(pred.shape)} and {tuple(target.shape)}")
    if pred.is_floating_point() or target.is_floating_point():
        raise TypeError("class ids must be integers; take the argmax first")
    # as int64, because in uint8 an ignore_index of -1 or 300 would be another id
    target, pred = target.long(), pred.long()
    keep = target != ignore_index
    for name, ids in (("prediction", pred), ("target", target)):
        counted = torch.where(keep, ids, 0)
        if ids.numel() and not (int(counted.min()) >= 0 and int(counted.max()) < num_classes):
            low, high = (int(v) for v in torch.aminmax(ids[keep]))
            raise ValueError(f"{name} holds ids {low}..{high}, but there are {num_classes} classes")
    # one more cell for what does not count: several times faster than picking the pixels that do
    cells = torch.where(keep, target * num_classes + pred, num_classes**2)
    counts = torch.bincount(cells.flatten(), minlength=num_classes**2 + 1)[:-1]
    return counts.view(num_classes, num_classes)


def iou(confusion: Tensor | NDArray[np.integer]) -> NDArray[np.float64]:
    """Intersection over union per class, from a (K, K) matrix of counts.

    Returns:
        (K,) float64; NaN for a class that occurs neither in the truth nor in the prediction.
    """
    counts = np.asarray(confusion.cpu() if isinstance(confusion, Tensor) else confusion).astype(np.int64)
    hits = np.diagonal(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    with np.errstate(invalid="ignore"):
        scores: NDArray[np.float64] = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
    return scores


def precision(confusion: Tensor | NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of the pixels predicted as a class that are of it.

    Returns:
        (K,) float64; NaN for a class that is never predicted.
    """
    return _shares(confusion, axis=0)


def recall(confusion: Tensor | NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of a class's pixels that are predicted as it.

    Returns:
        (K,) float64; NaN for a class that does not occur in the truth.
    """
    return _shares(confusion, axis=1)


def _shares(confusion: Tensor | NDArray[np.integer], axis: int) -> NDArray[np.float64]:
    """Diagonal over the sums along an axis."""
    counts = np.asarray(confusion.cpu() if isinstance(confusion, Tensor) else confusion).astype(np.int64)
    totals = counts.sum(axis=axis)
    shares: NDArray[np.float64] = np.where(totals > 0, np.diagonal(counts) / np.maximum(totals, 1), np.nan)
    return shares


def mean_iou(confusion: Tensor | NDArray[np.integer], classes: NDArray[np.integer] | None = None) -> float:
    """Mean of the per-class IoU over classes that occur, optionally over a subset of classes; NaN if none does."""
    scores = iou(confusion)
    scores = scores if classes is None else scores[classes]
    scores = scores[~np.isnan(scores)]
    return float(scores.mean()) if scores.size else float("nan")


def pixel_accuracy(confusion: Tensor | NDArray[np.integer]) -> float:
    """Share of counted pixels whose class is right; NaN where nothing was counted."""
    counts = np.asarray(confusion.cpu() if isinstance(confusion, Tensor) else confusion).astype(np.int64)
    total = int(counts.sum())
    return float(np.trace(counts) / total) if total else float("nan")
