"""Class prototypes: averages of features under masks, and how similar each place is to them.

N images, K classes, D feature channels, h x w places. Everything is matrix products: no tensor of N x K x D x h x w
is ever built, so memory grows with N·K·D + N·D·h·w.

The few-shot half (from `foreground` on) follows PFENet's arithmetic as dsmf.md section 4 gives it; there K counts the
shots of an episode. It computes in float32 at least, whatever autocast says.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

NORM_EPS = 1e-8
COSINE_EPS = 1e-7
"""PFENet adds it to the product of the norms, and to the range of a map."""
AREA_EPS = 5e-4
"""PFENet adds it to the area of a mask: an empty mask has the prototype 0."""


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


def foreground(mask: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Where a mask is foreground: only where it equals 1, so neither the background nor what is ignored (255).

    Args:
        mask: (N, K, H, W) of 0, 1 and 255.
        size: grid to resize to, bilinearly with corners aligned; the weights are soft at borders then.

    Returns:
        (N, K, H, W) or (N, K, *size), float32 in [0, 1].
    """
    weights = (mask == 1).float()
    return weights if size is None else _resized(weights, size)


def weighted_average_pool(features: Tensor, mask: Tensor, eps: float = AREA_EPS) -> Tensor:
    """Average the features under a soft mask (dsmf.md 4.3): sum of f·m over (sum of m + eps).

    Args:
        features: (N, D, h, w).
        mask: (N, 1, h, w) weights; an empty mask gives exactly 0.
        eps: added to the area of the mask.

    Returns:
        (N, D), float32 at least.
    """
    with torch.autocast(features.device.type, enabled=False):
        values, weights = _precise(features, mask)
        flat = weights.flatten(1)
        return torch.bmm(values.flatten(2), flat[..., None])[..., 0] / (flat.sum(dim=1, keepdim=True) + eps)


def scaled_cosine_map(features: Tensor, prototype: Tensor) -> Tensor:
    """Cosine of every place with a prototype, stretched to 0..1 per image (dsmf.md 4.3).

    Args:
        features: (N, D, h, w).
        prototype: (N, D); an all-zero prototype gives 0 everywhere.

    Returns:
        (N, 1, h, w), float32 at least. The gradient also flows through minimum and maximum.
    """
    with torch.autocast(features.device.type, enabled=False):
        values, prototypes = _precise(features, prototype)
        flat = values.flatten(2)
        cosines = _cosines(prototypes[..., None], flat, _lengths(flat))
        return _stretched(cosines.reshape(len(values), 1, *values.shape[-2:]))


def prior_mask(query: Tensor, support: Tensor, mask: Tensor, chunk: int | None = None) -> Tensor:
    """How similar each place of the query is to the support place it resembles most (dsmf.md 4.4).

    The maximum is taken over all support places. Those outside the mask have features 0 and therefore similarity
    exactly 0, so they set a floor and need no exception. Every shot's map is stretched to 0..1 before the mean.

    Args:
        query: (N, D, h, w) features of the last stage.
        support: (N, K, D, h, w) features of the last stage, whose input was already masked.
        mask: (N, K, H, W), either whole numbers 0, 1 and 255, or a floating type that holds weights in [0, 1];
            resized to the support's grid, and the support's features are multiplied by it.
        chunk: support places compared at a time; None takes all of a shot. Memory grows with N·chunk·h·w.

    Returns:
        (N, 1, h, w) in [0, 1] without a gradient, float32 at least; 0 everywhere where all masks are empty.

    Raises:
        ValueError: chunk below 1, or no shot at all.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    if not support.shape[1]:
        raise ValueError("an episode needs at least one shot")
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        size = (support.shape[-2], support.shape[-1])
        weights = _resized(mask, size) if mask.is_floating_point() else foreground(mask, size)
        queries, supports, weights = _precise(query, support, weights)
        flat = queries.flatten(2)
        # shot by shot: memory does not depend on K then, and the query is never copied for each shot
        nearest = [
            _nearest(flat, supports[:, shot].flatten(2), weights[:, shot].flatten(1), chunk)
            for shot in range(supports.shape[1])
        ]
        maps = torch.stack(nearest, dim=1).reshape(len(queries), -1, *queries.shape[-2:])
        return _stretched(maps).mean(dim=1, keepdim=True)


def _nearest(query: Tensor, support: Tensor, weights: Tensor, chunk: int | None) -> Tensor:
    """(N, Q) largest cosine of each query place (N, D, Q) over the support places (N, D, P) times (N, P) weights."""
    lengths, (parts, whole) = _lengths(query), _places(weights, chunk)
    best = [_cosines(support[..., p] * weights[:, None, p], query, lengths).amax(dim=1) for p in parts]
    if not whole:
        # what no image of the batch has under its mask is not multiplied: its similarity is 0
        best.append(torch.zeros_like(lengths))
    return torch.stack(best).amax(dim=0)


def _places(weights: Tensor, chunk: int | None) -> tuple[Sequence[Tensor | slice], bool]:
    """Support places to compare, so many at a time, and whether these are all: a CPU leaves out what has no weight.

    Of a GPU one would have to wait for their number, and compiled code would be compiled anew for it.
    """
    if weights.device.type != "cpu" or torch.compiler.is_compiling():
        places = weights.shape[-1]
        step = chunk or places
        return [slice(start, start + step) for start in range(0, places, step)], True
    seen = (weights > 0).any(dim=0).nonzero()[:, 0]
    return torch.split(seen, chunk or max(1, len(seen))) if len(seen) else (), len(seen) == weights.shape[-1]


def _cosines(one: Tensor, other: Tensor, lengths: Tensor) -> Tensor:
    """(N, P, Q) cosines of (N, D, P) with (N, D, Q) of given lengths (N, Q); epsilon goes to the product of lengths."""
    # only these two are as large as the result
    below = torch.bmm(_lengths(one)[..., None], lengths[:, None]).add_(COSINE_EPS)
    return torch.bmm(one.transpose(1, 2), other).div_(below)


def _lengths(vectors: Tensor) -> Tensor:
    """(N, P) lengths of (N, D, P), with gradient 0 at 0.

    Ten times as fast as `vector_norm`, which adds up the squares of one place at a time, and closer.
    """
    squares: Tensor = vectors.square().sum(dim=1)
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


def _stretched(maps: Tensor) -> Tensor:
    """(..., h, w) less its minimum, over (its range + epsilon)."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return (maps - low) / (high - low + COSINE_EPS)


def _resized(weights: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, K, H, W) as float32 at least, bilinear with corners aligned."""
    (precise,) = _precise(weights)
    return F.interpolate(precise, size, mode="bilinear", align_corners=True)


def _precise(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All in the widest of their types, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
