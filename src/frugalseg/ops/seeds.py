"""Seed labels from class maps: what pixel affinities are learnt from.

Notation: k present classes with the background first, H x W pixels; every function also takes batches (N, ...) of
images of one size and one k. Rows are indices 0..k-1 into the maps, ids are classes of the benchmark, `keys` turns the
one into the other. Unknown pixels are 255. Sources: sfc.md section 7.1, cti.md sections 7 and 8.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from frugalseg.ops.crf import SFC_KERNELS, Kernels, Pairwise, dense_crf

UNKNOWN = 255
"""Pixels that no rule is sure of."""
NO_SCORE = 1e-5
"""Below it a CRF score of PSA says that the pixel lies outside of the image (cti.md 8.2)."""

Refine = Callable[[Tensor], Tensor]
"""Rows (..., H, W) to better rows: a CRF, or the identity."""


def best_rows(scores: Tensor) -> Tensor:
    """Row with the highest score of each pixel, the first of equal ones: (..., k, H, W) to (..., H, W) int64."""
    # max(...).indices is argmax, and on the CPU many times faster over a leading dimension
    return scores.max(dim=-3).indices


def ids_of_rows(rows: Tensor, keys: Tensor) -> Tensor:
    """Class ids of rows.

    Args:
        rows: (..., H, W) int64.
        keys: (..., k) class id of each row, in as many dimensions before.

    Returns:
        (..., H, W) int64.
    """
    return keys.long().gather(-1, rows.flatten(-2)).view(rows.shape)


def alpha_unary(foreground: Tensor, alpha: float) -> Tensor:
    """Probabilities for a CRF: the background's is (1 - largest class score)^alpha; they need not sum to 1 (cti.md 7).

    Args:
        foreground: (..., k - 1, H, W) scores in [0, 1]; none is an image without classes.
        alpha: large ones leave little to the background.

    Returns:
        (..., k, H, W).
    """
    if not foreground.shape[-3]:
        return foreground.new_ones(*foreground.shape[:-3], 1, *foreground.shape[-2:])
    background = (1 - foreground.amax(dim=-3, keepdim=True)).clamp(min=0) ** alpha
    return torch.cat([background, foreground], dim=-3)


def crf_labels(
    rows: Tensor,
    image: Tensor,
    num_labels: int,
    kernels: Kernels = SFC_KERNELS,
    iterations: int = 12,
    gt_prob: float = 0.7,
    pairwise: Pairwise | None = None,
) -> Tensor:
    """Rows after a CRF that takes them for labels with probability `gt_prob` (sfc.md 7.1).

    Args:
        rows: (H, W) or (N, H, W) int64, or several sets of them, (S, H, W) or (N, S, H, W).
        image: (H, W, 3) or (N, H, W, 3) uint8.
        num_labels: k; the classes that an image does not show cost nothing.
        kernels: widths and weights; not looked at where `pairwise` is given.
        iterations: mean-field steps.
        gt_prob: share of the given row; the other rows have the rest in equal parts.
        pairwise: of the image, shared between calls; None makes it.

    Returns:
        Like `rows`.
    """
    if num_labels == 1:
        return rows
    scores = dense_crf(image, rows, kernels, iterations, gt_prob, num_labels, pairwise)
    return best_rows(scores)


def _merge(strict: Tensor, lenient: Tensor, keys: Tensor, refine: Refine) -> Tensor:
    """Classes of the strict rows; background where neither finds one; unknown where only the lenient rows do."""
    # together: a CRF takes little longer for two sets of rows than for one
    strict, lenient = refine(torch.stack([strict, lenient], dim=-3)).unbind(dim=-3)
    labels = ids_of_rows(strict, keys)
    return labels.masked_fill_((strict == 0) & (lenient != 0), UNKNOWN)


def sfc_seed_labels(scores: Tensor, keys: Tensor, refine: Refine) -> Tensor:
    """SFC's seed labels: sure of a class where it beats the background, of the background where half of it still wins.

    Args:
        scores: (..., k, H, W), M_W + 0.7 M_P; left as it is (the reference halves the caller's array, sfc.md trap 11).
        keys: (..., k) class ids, 0 first.
        refine: called with (..., 2, H, W), the rows of the scores before those of the halved background.

    Returns:
        (..., H, W) int64 ids and 255.
    """
    halved = torch.cat([scores[..., :1, :, :] * 0.5, scores[..., 1:, :, :]], dim=-3)
    return _merge(best_rows(scores), best_rows(halved), keys, refine)


def threshold_seed_labels(
    foreground: Tensor, keys: Tensor, refine: Refine, high: float = 0.40, low: float = 0.26
) -> Tensor:
    """IRN's seed labels: two constants take the background's place (cti.md 8.1; IRN itself has 0.30 and 0.05).

    Args:
        foreground: (..., k - 1, H, W) scores in [0, 1].
        keys: (..., k) class ids, 0 first.
        refine: called with (..., 2, H, W), the rows at `high` before those at `low`.
        high: a class must exceed it to be sure.
        low: below it the background is sure.

    Returns:
        (..., H, W) int64 ids and 255.
    """
    strict, lenient = (best_rows(constant_background(foreground, value)) for value in (high, low))
    return _merge(strict, lenient, keys, refine)


def constant_background(foreground: Tensor, value: float) -> Tensor:
    """A background that scores the same everywhere, in front: (..., k - 1, H, W) to (..., k, H, W)."""
    shape = (*foreground.shape[:-3], 1, *foreground.shape[-2:])
    return torch.cat([foreground.new_full(shape, value), foreground], dim=-3)


def psa_seed_labels(low: Tensor, high: Tensor, keys: Tensor) -> Tensor:
    """PSA's seed labels from two sets of CRF scores (cti.md 8.2; alphas 4 and 24, MCTformer's 1 and 12).

    Args:
        low: (..., k, H, W) of the low alpha, where the background is strong; its classes are sure.
        high: (..., k, H, W) of the high alpha; its background is sure, whatever `low` says.
        keys: (..., k) class ids, 0 first.

    Returns:
        (..., H, W) int64 ids and 255.
    """
    rows = best_rows(low)
    labels = ids_of_rows(rows, keys).masked_fill_(rows == 0, UNKNOWN).masked_fill_(best_rows(high) == 0, 0)
    outside = torch.maximum(low.amax(dim=-3), high.amax(dim=-3)) < NO_SCORE
    return labels.masked_fill_(outside, UNKNOWN)
