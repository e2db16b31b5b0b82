"""Scores of one-way few-shot episodes: counts per episode, summed per class, divided last.

An episode asks for one class; its masks hold 0 (background), 1 (foreground) and, in the truth, 255 (ignored). The score
is an IoU of the whole data set, not a mean over episodes. dsmf.md section 7.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.ops.confusion import confusion_matrix


class Convention(NamedTuple):
    """How a family of published code counts and divides.

    Attributes:
        ignored_is_background: ignored pixels are background instead of being left out, so a prediction there adds to
            the union.
        epsilon: added to the union before the division; 0 divides by max(union, 1) instead.
    """

    ignored_is_background: bool
    epsilon: float


CONVENTIONS = {"hs": Convention(False, 0.0), "pfe": Convention(False, 1e-10), "sdm": Convention(True, 0.0)}
"""HSNet, SCCNet and PCFNet; PFENet, BAM and R2Net; SDM. The first two differ by 1e-10 at most; the third is another
measure, so a table must say which one it holds."""


@dataclass(frozen=True)
class Counts:
    """Pixels of one episode.

    Attributes:
        intersection: (2,) int64, background and foreground.
        union: (2,) int64.
    """

    intersection: Tensor
    union: Tensor


@dataclass(frozen=True)
class ClassSums:
    """Pixels summed over the episodes of each of C classes.

    Attributes:
        classes: ids of the classes of the fold, in the order of the rows.
        episodes: (C,) int64, how many episodes each class had.
        intersection: (C, 2) int64, background and foreground.
        union: (C, 2) int64.
    """

    classes: tuple[int, ...]
    episodes: Tensor
    intersection: Tensor
    union: Tensor


def count_episode(pred: Tensor, target: Tensor, ignore_index: int = 255, convention: str = "hs") -> Counts:
    """Count intersection and union of background and foreground.

    Args:
        pred: (H, W) whole numbers 0 and 1.
        target: (H, W) of 0, 1 and `ignore_index`.
        ignore_index: value of `target` without a truth.
        convention: key of `CONVENTIONS`; says what becomes of ignored pixels.

    Returns:
        The counts, on the device of the masks.

    Raises:
        ValueError: shapes differ, a value other than those above, or an unknown convention.
        TypeError: floating-point masks.
    """
    if _convention(convention).ignored_is_background:
        target = torch.where(target == ignore_index, 0, target)
    matrix = confusion_matrix(pred, target, 2, ignore_index)
    hits = matrix.diagonal()
    return Counts(hits, matrix.sum(dim=0) + matrix.sum(dim=1) - hits)


def sum_by_class(counts: Iterable[Counts], classes: Iterable[int], fold: Sequence[int]) -> ClassSums:
    """Sum episodes per class; whole numbers, so the order does not matter.

    Args:
        counts: one per episode.
        classes: class id of each episode.
        fold: ids of all classes that are tested.

    Returns:
        The sums on the CPU, classes in the order of `fold`.

    Raises:
        ValueError: an episode of a class outside the fold, a class named twice, or lists of different length.
    """
    rows = {label: row for row, label in enumerate(fold)}
    if len(rows) < len(fold):
        raise ValueError(f"a class is named twice in the fold {tuple(fold)}")
    sums = ClassSums(
        tuple(fold),
        torch.zeros(len(rows), dtype=torch.int64),
        torch.zeros(len(rows), 2, dtype=torch.int64),
        torch.zeros(len(rows), 2, dtype=torch.int64),
    )
    for episode, label in zip(counts, classes, strict=True):
        if label not in rows:
            raise ValueError(f"an episode of class {label}, which is not in the fold {tuple(fold)}")
        sums.episodes[rows[label]] += 1
        sums.intersection[rows[label]] += episode.intersection.cpu()
        sums.union[rows[label]] += episode.union.cpu()
    return sums


def class_iou(sums: ClassSums, convention: str = "hs") -> NDArray[np.float64]:
    """Foreground IoU of each class.

    Returns:
        (C,) float64; 0 for a class without a pixel in its union, be it for want of episodes (see `mean_iou`).
    """
    return _ratio(sums.intersection[:, 1], sums.union[:, 1], convention)


def mean_iou(sums: ClassSums, convention: str = "hs", allow_absent: bool = False) -> float:
    """Mean foreground IoU over ALL classes of the fold.

    Args:
        sums: of `sum_by_class`.
        convention: key of `CONVENTIONS`.
        allow_absent: a class without episodes scores 0 and counts, as in the published code. Such a number says more
            about the sampler than about the method, so it has to be asked for.

    Raises:
        ValueError: a class has no episodes, or there is no class.
    """
    if not sums.classes:
        raise ValueError("a fold without classes has no mean IoU")
    absent = [label for label, number in zip(sums.classes, sums.episodes.tolist(), strict=True) if not number]
    if absent and not allow_absent:
        raise ValueError(f"no episodes of class {', '.join(map(str, absent))}; draw some for every class of the fold")
    return float(class_iou(sums, convention).mean())


def fb_iou(sums: ClassSums, convention: str = "hs") -> float:
    """Mean of the background's and the foreground's IoU, each pooled over all episodes of all classes.

    Raises:
        ValueError: there are no episodes.
    """
    if not int(sums.episodes.sum()):
        raise ValueError("no episodes, so there is no FB-IoU")
    return float(_ratio(sums.intersection.sum(dim=0), sums.union.sum(dim=0), convention).mean())


def _convention(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {name!r}")
    return CONVENTIONS[name]


def _ratio(intersection: Tensor, union: Tensor, convention: str) -> NDArray[np.float64]:
    """Intersection over guarded union."""
    epsilon = _convention(convention).epsilon
    below = union.double() + epsilon if epsilon else union.clamp_min(1).double()
    ratio: NDArray[np.float64] = (intersection.double() / below).cpu().numpy()
    return ratio
