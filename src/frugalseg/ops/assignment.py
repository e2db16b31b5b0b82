"""Assignments: soft ones of points to prototypes, balanced over all points, and hard ones that maximise a score."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over ranks: all ranks call it, in the same order, and all get the same sum."""

_SAFE_EXPONENT = 500.0
"""float64 holds exp(x) for |x| < 708; sums over ranks need some room."""


@torch.no_grad()
def sinkhorn(logits: Tensor, eps: float, iterations: int, reduce: Reduce | None = None) -> Tensor:
    """Soft assignment in which every point weighs the same and every prototype gets about the same weight.

    Q = exp(logits / eps); each iteration divides each prototype's column by its sum and by K, then each point's row by
    its sum and by N; the result is multiplied by N (mevt.md c.4; golden/ssl/sinkhorn). What is common to all columns,
    or to all rows, drops out in the division that follows, so neither K nor N need be known.

    The first iteration works on logarithms, so that no range of logits overflows. After it each column sums to at least
    1 / K, and after any later division each row to at least 1 / (points of all ranks): plain divisions are safe then.
    All is float64, which makes any number of ranks give the same result.

    Args:
        logits: (N, K) similarities of this rank's points to all prototypes; N may be 0 and differ between ranks.
        eps: temperature; the smaller, the harder the assignment.
        iterations: at least 1.
        reduce: sums a tensor over ranks; None for a single rank.

    Returns:
        (N, K) of the dtype of `logits`, float32 for half precision; no gradient. Rows sum to 1, columns to about the
        number of points over K.

    Raises:
        ValueError: `eps` is not positive, or there are no iterations.
    """
    if eps <= 0 or iterations < 1:
        raise ValueError(f"Sinkhorn needs a positive eps and at least one iteration, got {eps} and {iterations}")
    scores = logits.double() / eps
    balanced = (scores - _log_column_sums(scores, reduce)).softmax(dim=1)
    for _ in range(iterations - 1):
        columns = balanced.sum(dim=0)
        balanced = balanced / (columns if reduce is None else reduce(columns))
        balanced = balanced / balanced.sum(dim=1, keepdim=True)
    return balanced.to(torch.promote_types(logits.dtype, torch.float32))


def _log_column_sums(scores: Tensor, reduce: Reduce | None) -> Tensor:
    """Logarithm of the sum of exp over the rows of all ranks.

    Ranks can only be summed over, so the common offset that keeps exp in range is found with sums as well: a smooth
    maximum, softened just as much as the spread of the ranks' values demands. It lies between the true maximum and that
    plus softness * log(ranks), which is close enough for the exact sum that follows.

    Args:
        scores: (N, K) float64.
        reduce: see `sinkhorn`.

    Returns:
        (K,).
    """
    if reduce is None:
        return scores.logsumexp(dim=0)
    # a rank without points takes part in all sums, with nothing
    some = scores.new_full((scores.shape[1],), float(len(scores) > 0))
    own = scores.logsumexp(dim=0) if len(scores) else torch.zeros_like(some)
    centre = reduce(some * own) / reduce(some).clamp(min=1)
    softness = (reduce(some * (own - centre).abs()) / _SAFE_EXPONENT).clamp(min=1)
    offset = centre + softness * reduce(some * ((own - centre) / softness).exp()).log()
    return offset + reduce(some * (own - offset).exp()).log()


def hungarian_match(scores: Tensor | NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One-to-one pairs of rows and columns that maximise the sum of their scores.

    Args:
        scores: (R, C).

    Returns:
        Rows in ascending order and their columns, both (min(R, C),).

    Raises:
        ValueError: `scores` is not a matrix, or not finite.
    """
    table = np.asarray(scores.detach().cpu() if isinstance(scores, Tensor) else scores)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(f"scores to match must be a matrix of finite numbers, got shape {table.shape}")
    rows, columns = linear_sum_assignment(table, maximize=True)
    return rows.astype(np.int64), columns.astype(np.int64)
