"""From counts to the flat keys of `metrics.json`."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from frugalseg.ops.boundary import boundary_iou
from frugalseg.ops.confusion import iou, mean_iou, pixel_accuracy

Counts = Mapping[str, NDArray[np.int64]]


def flat_scores(
    counts: Counts,
    split: str,
    class_names: Sequence[str],
    groups: dict[str, NDArray[np.int64]] | None = None,
    boundary: Counts | None = None,
    ignored: Counts | None = None,
    background: bool = False,
) -> dict[str, float]:
    """Scores by flat key.

    Args:
        counts: rule, or name of masks -> (K, K) confusion matrix. The name "" leaves no trace in the keys.
        split: front part of every key.
        class_names: K names, background first where there is one.
        groups: group name -> class ids.
        boundary: rule or name -> (3, K) pixels of boundary regions.
        ignored: name of masks -> (2,) undecided pixels and all pixels.
        background: whether class 0 is the background, whose false positives are wanted too.

    Returns:
        `<split>/miou_<rule>`, `<split>/miou_<rule>_<group>`, `<split>/iou_<rule>/<class>`,
        `<split>/pixel_accuracy_<rule>`, `<split>/boundary_iou_<rule>`, with a background
        `<split>/false_positive_<rule>` (see `false_positives`) and, where there are undecided pixels,
        `<split>/ignored_<name>`, as fractions; classes that do not occur have no key.
    """
    flat: dict[str, float] = {}
    for rule, matrix in counts.items():
        end = ending(rule)
        flat[f"{split}/miou{end}"] = mean_iou(matrix)
        for group, classes in (groups or {}).items():
            flat[f"{split}/miou{end}_{group}"] = mean_iou(matrix, classes)
        scores = zip(class_names, iou(matrix).tolist(), strict=True)
        flat |= {f"{split}/iou{end}/{name}": score for name, score in scores}
        flat[f"{split}/pixel_accuracy{end}"] = pixel_accuracy(matrix)
        if background:
            flat[f"{split}/false_positive{end}"] = false_positives(matrix)
    for rule, pixels in (boundary or {}).items():
        found = boundary_iou(pixels)
        found = found[~np.isnan(found)]
        flat[f"{split}/boundary_iou{ending(rule)}"] = float(found.mean()) if found.size else float("nan")
    for name, (undecided, pixels) in (ignored or {}).items():
        flat[f"{split}/ignored{ending(name)}"] = undecided / pixels if undecided else float("nan")
    return {key: float(value) for key, value in flat.items() if not np.isnan(value)}


def false_positives(confusion: NDArray[np.integer]) -> float:
    """Share of true background that is predicted as some class: where maps spill over, which a mean IoU does not say.

    Args:
        confusion: (K, K) counts, row = true class, background first.

    Returns:
        A fraction; NaN where no pixel is background.
    """
    total = int(confusion[0].sum())
    return float((total - confusion[0, 0]) / total) if total else float("nan")


def ending(name: str) -> str:
    """What a rule, or name of masks, appends to a metric's key."""
    return f"_{name}" if name else ""
