"""Class prototypes: averages of features under masks, and how similar each place is to them.

N images, K classes, D feature channels, h x w places. Everything is matrix products: no tensor of N x K x D x h x w
is ever built, so memory grows with N·K·D + N·D·h·w.
"""

import torch
from torch import Tensor

NORM_EPS = 1e-8


def masked_average_pool(features: Tensor, masks: Tensor) -> Tensor:
    """Sum features under each mask and divide by the number of ALL places (sfc.md 2.3, step 5).

    Dividing by h·w and not by the mask's area changes the length of a prototype only, which the cosine ignores.

    Args:
        features: (N, D, h, w).
        masks: (N, K, h, w), 0/1 or weights.

    Returns:
        (N, K, D).
    """
    places = features.shape[-2] * features.shape[-1]
    return masks.flatten(2) @ features.flatten(2).transpose(1, 2) / places


def cosine_map(features: Tensor, prototypes: Tensor, eps: float = NORM_EPS) -> Tensor:
    """Cosine between every place and every prototype, each norm clamped below by `eps`.

    Args:
        features: (N, D, h, w).
        prototypes: (N, K, D); an all-zero prototype gives exactly 0.
        eps: lower bound of each norm.

    Returns:
        (N, K, h, w) in [-1, 1].
    """
    unit_prototypes = prototypes / torch.linalg.vector_norm(prototypes, dim=-1, keepdim=True).clamp_min(eps)
    flat = features.flatten(2)
    # dividing the K x hw products is cheaper than dividing the D x hw features
    cosines: Tensor = unit_prototypes @ flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(eps)
    return cosines.reshape(len(cosines), -1, features.shape[-2], features.shape[-1])


def argmax_masks(scores: Tensor, background_factor: float = 0.3) -> Tensor:
    """One-hot masks of the winning channel, after the background has been multiplied by a factor.

    Args:
        scores: (N, K, h, w), background first.
        background_factor: below 1 gives doubtful places to the foreground.

    Returns:
        (N, K, h, w) of 0 and 1 in the type of `scores`, without a gradient.
    """
    with torch.no_grad():
        shaded = torch.cat([scores[:, :1] * background_factor, scores[:, 1:]], dim=1)
        return torch.zeros_like(shaded).scatter_(1, shaded.max(dim=1, keepdim=True).indices, 1.0)
