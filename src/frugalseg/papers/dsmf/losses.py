"""DSMF-Net's loss as a function of logits (dsmf.md 4.6)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.batch import IGNORE_INDEX
from frugalseg.nn.ranks import Average, divided
from frugalseg.ops.constants import constants
from frugalseg.ops.precision import at_least_float32


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, weights: Sequence[float], average: Average | None = None
) -> Tensor:
    """Weighted mean of the cross-entropy over all pixels that count.

    Args:
        logits: (N, B, H, W).
        target: (N, H, W) int64 of 0..B-1 and 255.
        weights: (B,) of each class's pixels.
        average: over ranks, whose pixels are one mean; see `over_ranks`.

    Returns:
        A scalar; 0 where every pixel is ignored.
    """
    with torch.autocast(logits.device.type, enabled=False):
        wide = at_least_float32(logits)
        weight = constants(weights, wide)
        total = F.cross_entropy(wide, target, weight, ignore_index=IGNORE_INDEX, reduction="sum")
        # torch's own mean is NaN where nothing counts
        counted = torch.where(target == IGNORE_INDEX, 0.0, weight[target.clamp(max=len(weight) - 1)]).sum()
        return divided(total, counted, average)


def episode_loss(
    logits: Tensor, target: Tensor, foreground_weight: float = 1.0, average: Average | None = None
) -> Tensor:
    """Cross-entropy of background and class over all pixels that count.

    With a foreground weight above 1 the mean is the weighted one: small objects are not drowned by their background.

    Args:
        logits: (N, 2, H, W).
        target: (N, H, W) int64 of 0, 1 and 255.
        foreground_weight: of the class's pixels; the background's is 1. Published methods weigh both 1.
        average: see `weighted_cross_entropy`.

    Returns:
        A scalar; 0 where every pixel is ignored.
    """
    return weighted_cross_entropy(logits, target, (1.0, foreground_weight), average)


def auxiliary_loss(
    logits: Sequence[Tensor], target: Tensor, foreground_weight: float = 1.0, average: Average | None = None
) -> Tensor:
    """Mean of the same loss over the auxiliary heads; 0 where there are none.

    Args:
        logits: (N, 2, H, W) of each head.
        target: (N, H, W).
        foreground_weight: see `episode_loss`.
        average: see `weighted_cross_entropy`.
    """
    if not logits:
        return target.new_zeros((), dtype=torch.float32)
    return torch.stack([episode_loss(part, target, foreground_weight, average) for part in logits]).mean()
