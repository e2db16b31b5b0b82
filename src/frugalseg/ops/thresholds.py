"""All background thresholds of class maps in one pass.

A pixel's prediction at threshold t is the argmax over [t, map of class 1, ...], the first maximum wins: the class with
the largest map where that exceeds t, else the background (cti.md section 10). The winning class does not depend on t:
one histogram of the winner's score holds the confusion matrices of every threshold.
"""

import torch
from torch import Tensor


def histogram(
    scores: Tensor, keys: Tensor, truth: Tensor, thresholds: Tensor, num_classes: int, ignore_index: int = 255
) -> Tensor:
    """Count pixels by true class, winning class, and number of thresholds that the winner's score exceeds.

    Counts of several images may be added before they are cumulated. Scores and thresholds are compared in float32.

    Args:
        scores: (k, H, W) maps of foreground classes; k may be 0.
        keys: (k,) class ids of the maps, each in 1..K-1.
        truth: (H, W) integer class ids; pixels equal to `ignore_index` do not count.
        thresholds: (T,) ascending, not negative.
        num_classes: K, background included.
        ignore_index: value of `truth` that is left out.

    Returns:
        (K, K, T + 1) int64.

    Raises:
        ValueError: shapes differ, thresholds do not ascend or are negative, or an id lies outside its range.
    """
    _check(scores, keys, truth, thresholds, num_classes)
    counts = torch.zeros(num_classes, num_classes, len(thresholds) + 1, dtype=torch.int64, device=scores.device)
    if not len(keys):
        scores, keys = scores.new_zeros(1, *truth.shape), keys.new_zeros(1)
    truth = truth.long()
    keep = truth != ignore_index
    true = torch.where(keep, truth, 0)
    if true.numel() and not (int(true.min()) >= 0 and int(true.max()) < num_classes):
        raise ValueError(f"truth holds ids {int(true.min())}..{int(true.max())}, but there are {num_classes} classes")
    # over a leading dimension, max is many times faster on the CPU than argmax; both give the first maximum
    best, winner = scores.float().max(dim=0)
    passed = torch.bucketize(best, thresholds.to(best.device, torch.float32))  # how many are smaller than the score
    cells, bins = num_classes * len(keys), len(thresholds) + 1
    code = torch.where(keep, (true * len(keys) + winner) * bins + passed, cells * bins)
    compact = torch.bincount(code.flatten(), minlength=cells * bins + 1)[:-1]
    return counts.index_add_(1, keys.long(), compact.view(num_classes, len(keys), bins))


def cumulate(counts: Tensor) -> Tensor:
    """Confusion matrices of all thresholds from a `histogram`.

    Args:
        counts: (K, K, T + 1).

    Returns:
        (T, K, K) int64, row = true class, column = predicted class.
    """
    above = counts.flip(-1).cumsum(-1).flip(-1)[..., 1:].permute(2, 0, 1).clone()
    totals = counts.sum(dim=(1, 2))
    above[:, :, 0] += totals - above.sum(dim=-1)
    return above


def sweep(
    scores: Tensor, keys: Tensor, truth: Tensor, thresholds: Tensor, num_classes: int, ignore_index: int = 255
) -> Tensor:
    """Confusion matrices of one image at every threshold; see `histogram` for arguments and errors.

    Returns:
        (T, K, K) int64, row = true class, column = predicted class.
    """
    return cumulate(histogram(scores, keys, truth, thresholds, num_classes, ignore_index))


def _check(scores: Tensor, keys: Tensor, truth: Tensor, thresholds: Tensor, num_classes: int) -> None:
    """Raises ValueError for what `histogram` does not take, its truth's ids apart."""
    if scores.ndim != 3 or scores.shape != (len(keys), *truth.shape):
        raise ValueError(f"scores of {len(keys)} keys and truth differ: {tuple(scores.shape)}, {tuple(truth.shape)}")
    if len(keys) and not (int(keys.min()) >= 1 and int(keys.max()) < num_classes):
        raise ValueError(f"keys are {keys.tolist()}, but foreground classes run from 1 to {num_classes - 1}")
    if not len(thresholds) or bool((thresholds < 0).any()) or bool((thresholds.diff() <= 0).any()):
        raise ValueError("thresholds must ascend from 0 or more, and there must be one at least")
