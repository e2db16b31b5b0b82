"""Scores of clusters against classes: counts, matchings, and the two mean IoUs that are in use.

Protocol K1 (mevt.md d.5, as Leopart) matches by IoU and averages over all classes, absent ones with 0. Protocol K2 (as
STEGO and PiCIE) matches by pixels and averages over the classes that occur. On equal predictions they differ by several
points, so a result names its protocol. A matching is an array: class of each cluster, -1 for a cluster of no class.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.ops.assignment import hungarian_match

Counts = NDArray[np.int64]
Scores = NDArray[np.float64]


def cluster_counts(clusters: Tensor, target: Tensor, num_clusters: int, num_classes: int, ignore_index: int) -> Tensor:
    """Count pixels by (true class, cluster); counts of several images may be added up.

    Args:
        clusters: integer cluster ids, any shape, each in 0..num_clusters-1 wherever `target` counts.
        target: true class ids, same shape; pixels equal to `ignore_index` do not count.
        num_clusters: K.
        num_classes: C.
        ignore_index: value of `target` that is left out.

    Returns:
        (C, K) int64.

    Raises:
        ValueError: shapes differ, or an id that counts lies outside its range.
    """
    if clusters.shape != target.shape:
        raise ValueError(f"clusters and target differ in shape: {tuple(clusters.shape)} and {tuple(target.shape)}")
    counted = target != ignore_index
    rows, columns = target[counted].long(), clusters[counted].long()
    for name, ids, number in (("target", rows, num_classes), ("clusters", columns, num_clusters)):
        if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < number):
            raise ValueError(f"{name} holds ids {int(ids.min())}..{int(ids.max())}, but there are {number}")
    cells = torch.bincount(rows * num_clusters + columns, minlength=num_classes * num_clusters)
    return cells.view(num_classes, num_clusters)


def iou_matrix(counts: Tensor | Counts) -> Scores:
    """IoU of each class with each cluster, (C, K) float64 of (C, K) counts; 0 where both are empty."""
    shared = _array(counts)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    return _ratio(shared, union)


def precision_matrix(counts: Tensor | Counts) -> Scores:
    """Part of each cluster that is of each class, (C, K) float64 of (C, K) counts; 0 for an empty cluster."""
    shared = _array(counts)
    return _ratio(shared, np.broadcast_to(shared.sum(axis=0, keepdims=True), shared.shape))


def match_by_iou(counts: Tensor | Counts) -> Counts:
    """One cluster per class, maximising the sum of IoU; the clusters that are left over become class 0 (K1).

    Args:
        counts: (C, K).

    Returns:
        (K,) class of each cluster.
    """
    return _one_to_one(iou_matrix(counts), leftover=0)


def match_by_pixels(counts: Tensor | Counts) -> Counts:
    """One cluster per class, maximising the matched pixels; the clusters that are left over belong to no class (K2).

    Args:
        counts: (C, K).

    Returns:
        (K,) class of each cluster, -1 for none.
    """
    return _one_to_one(_array(counts), leftover=-1)


def best_classes(scores: Scores) -> Counts:
    """Each cluster's best class, the first one on ties: many clusters may share a class (overclustering).

    Args:
        scores: (C, K) of `iou_matrix` or `precision_matrix`.

    Returns:
        (K,) class of each cluster.
    """
    best: Counts = scores.argmax(axis=0).astype(np.int64)
    return best


def matched_counts(counts: Tensor | Counts, classes: Counts) -> Counts:
    """Counts by (true class, class of the cluster).

    Args:
        counts: (C, K).
        classes: (K,) class of each cluster, -1 for none.

    Returns:
        (C, C + 1); the last column holds the pixels of clusters that have no class.
    """
    table = _array(counts)
    merged = np.zeros((len(table), len(table) + 1), dtype=np.int64)
    np.add.at(merged.T, np.where(classes < 0, len(table), classes), table.T)
    return merged


def class_iou(matched: Counts) -> Scores:
    """IoU per class, (C,) float64 of the (C, C + 1) of `matched_counts`; 0 for a class that occurs nowhere."""
    hits = np.diagonal(matched)
    predicted = matched.sum(axis=0)[: len(matched)]
    return _ratio(hits, matched.sum(axis=1) + predicted - hits)


def mean_iou_of_all(matched: Counts) -> float:
    """Mean IoU over all classes, absent ones with 0 (K1)."""
    return float(class_iou(matched).mean())


def mean_iou_of_present(matched: Counts) -> float:
    """Mean IoU over the classes of which the truth has pixels (K2); NaN where it has none at all."""
    present = matched.sum(axis=1) > 0
    return float(class_iou(matched)[present].mean()) if present.any() else float("nan")


def matched_accuracy(matched: Counts) -> float:
    """Part of all counted pixels whose cluster has their class (K2); NaN where nothing was counted."""
    total = int(matched.sum())
    return float(np.trace(matched) / total) if total else float("nan")


def _one_to_one(scores: NDArray[np.generic], leftover: int) -> Counts:
    classes = np.full(scores.shape[1], leftover, dtype=np.int64)
    rows, columns = hungarian_match(scores)
    classes[columns] = rows
    return classes


def _array(counts: Tensor | Counts) -> Counts:
    return np.asarray(counts.cpu() if isinstance(counts, Tensor) else counts).astype(np.int64)


def _ratio(part: Counts, whole: Counts) -> Scores:
    ratio: Scores = np.where(whole > 0, part / np.maximum(whole, 1), 0.0)
    return ratio
