"""SFC's losses as functions of maps (sfc.md section 4). K = C + 1 channels, background first."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.ops.cam import normalise, resize

PROTOTYPE_WEIGHT = 1.6
SCALE_WEIGHT = 0.8


def class_weights(counts: Sequence[int] | NDArray[np.integer], bonus: float) -> NDArray[np.float64]:
    """Distribution coefficient of each class: how far its count is from all others, over the images it will show.

    w_c = q_c / mean(q), q_c = D_c / (n_c + bonus), D_c = sum_i |n_i - n_c| (section 4.2).

    Args:
        counts: (C,) training images per foreground class.
        bonus: images that the bank is expected to add per class (396 on VOC).

    Returns:
        (C,) weights with mean 1; all ones where every class is equally frequent.

    Raises:
        ValueError: a class that would be shown no image at all.
    """
    n = np.asarray(counts, dtype=np.float64)
    if np.any(n + bonus <= 0):
        raise ValueError("a class without images needs a positive bank bonus")
    demand = np.abs(n[:, None] - n[None, :]).sum(axis=0)
    q = demand / (n + bonus)
    return np.ones_like(q) if not q.any() else q / q.mean()


def classification_loss(score: Tensor, tags: Tensor) -> Tensor:
    """Mean sigmoid cross-entropy over images and classes (section 4.1).

    Args:
        score: (N, C, 1, 1) or (N, C) logits.
        tags: (N, C) 0/1.
    """
    return F.binary_cross_entropy_with_logits(score.flatten(1), tags.to(score.dtype))


def prototype_loss(mw: Tensor, mp: Tensor, weights: Tensor) -> Tensor:
    """Weighted distance between the refined classifier map and the prototype map (section 4.3, L_P without 1.6).

    Args:
        mw: (N, K, h, w).
        mp: (N, K, h, w), not yet divided by its maximum.
        weights: (K,) class weights, background 1.
    """
    return ((mw - normalise(mp)).abs() * weights.view(1, -1, 1, 1)).mean()


def scale_loss(mw: Tensor, mw_half: Tensor, tags: Tensor, weights: Tensor) -> Tensor:
    """Weighted distance between the maps of the image and of its half-size copy (section 4.4, L_W without 0.8).

    Foreground only; absent classes are set to 0 on both sides but count in the mean.

    Args:
        mw: (N, K, h, w).
        mw_half: (N, K, h/2, w/2).
        tags: (N, C) 0/1.
        weights: (K,) class weights, background first.
    """
    grid = (mw_half.shape[-2], mw_half.shape[-1])
    shrunk = resize(mw[:, 1:], grid, align_corners=True)
    factor = tags.to(mw.dtype)[:, :, None, None] * weights[1:].view(1, -1, 1, 1)
    return ((shrunk - mw_half[:, 1:]).abs() * factor).mean()


def with_background_weight(weights: NDArray[np.floating]) -> Tensor:
    """(C,) foreground weights -> (K,) float64 tensor, background weight 1 in front."""
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.as_tensor(weights, dtype=torch.float64)])
