"""Reading a sweep of background thresholds: the best one, and the curve."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from frugalseg.ops.confusion import mean_iou, pixel_accuracy, precision, recall
from frugalseg.ops.thresholds import cumulate


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores of one map at every threshold.

    Attributes:
        thresholds: (T,).
        miou: (T,) mean IoU.
        precision: (T,) mean over classes that are predicted.
        recall: (T,) mean over classes that occur.
        pixel_accuracy: (T,).
        confusion: (K, K) counts at the best threshold.
    """

    thresholds: NDArray[np.float64]
    miou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    pixel_accuracy: NDArray[np.float64]
    confusion: NDArray[np.int64]

    @property
    def best(self) -> int:
        """Number of the threshold with the largest mean IoU, the smallest of several."""
        return int(np.nanargmax(self.miou))


def read_curve(histogram: NDArray[np.int64], thresholds: Sequence[float]) -> Curve | None:
    """Scores from the counts of a whole split.

    Args:
        histogram: (K, K, T + 1), see `ops.thresholds.histogram`.
        thresholds: T values.

    Returns:
        The curve; None where no pixel counts.
    """
    if not histogram.any():
        return None
    counts = cumulate(torch.as_tensor(histogram)).numpy()
    miou = np.array([mean_iou(matrix) for matrix in counts])
    return Curve(
        np.asarray(thresholds, np.float64),
        miou,
        np.array([np.nanmean(precision(matrix)) for matrix in counts]),
        np.array([np.nanmean(recall(matrix)) for matrix in counts]),
        np.array([pixel_accuracy(matrix) for matrix in counts]),
        counts[int(np.nanargmax(miou))],
    )


def curves_csv(curves: Mapping[str, Curve]) -> str:
    """All curves below one another, as text of a CSV file.

    Args:
        curves: map -> curve.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("thresholds", "miou", "precision", "recall", "pixel_accuracy")
    writer.writerow(["map", "threshold", *columns[1:]])
    for name, curve in curves.items():
        rows = zip(*(getattr(curve, column).tolist() for column in columns), strict=True)
        writer.writerows([name, *row] for row in rows)
    return text.getvalue()
