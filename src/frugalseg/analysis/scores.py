"""From confusion matrices to the flat keys of `metrics.json`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from frugalseg.ops.confusion import iou, mean_iou


def flat_scores(
    counts: dict[str, NDArray[np.int64]],
    split: str,
    class_names: Sequence[str],
    groups: dict[str, NDArray[np.int64]] | None = None,
) -> dict[str, float]:
    """Scores by flat key.

    Args:
        counts: rule -> (K, K) confusion matrix.
        split: front part of every key.
        class_names: K names, background first.
        groups: group name -> class ids.

    Returns:
        `<split>/miou_<rule>`, `<split>/miou_<rule>_<group>` and `<split>/iou_<rule>/<class>`, as fractions;
        classes that do not occur have no key.
    """
    flat: dict[str, float] = {}
    for rule, matrix in counts.items():
        flat[f"{split}/miou_{rule}"] = mean_iou(matrix)
        for group, classes in (groups or {}).items():
            flat[f"{split}/miou_{rule}_{group}"] = mean_iou(matrix, classes)
        scores = iou(matrix)
        flat |= {
            f"{split}/iou_{rule}/{name}": float(score)
            for name, score in zip(class_names, scores, strict=True)
            if not np.isnan(score)
        }
    return {key: value for key, value in flat.items() if not np.isnan(value)}
