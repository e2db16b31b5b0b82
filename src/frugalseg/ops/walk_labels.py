"""Pseudo labels from class maps and pixel affinities, by a random walk.

Notation: k present classes with the background first, `keys` (k,) their class ids, H x W pixels, h x w cells of the
affinities' grid. Everything is computed in float32 or what is wider, without gradients. Sources: sfc.md section 7.3,
cti.md sections 8.1 and 8.2.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.ops.cam import labels_from_maps, resize
from frugalseg.ops.random_walk import propagate, walk
from frugalseg.ops.seeds import constant_background

STRIDES = (4, 8, 2, 16, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15)
"""Pixels per cell that are tried, those of the networks first: small images may fit several."""


def stride_of(size: tuple[int, int], cells: tuple[int, int]) -> int:
    """Pixels per cell of a grid.

    Args:
        size: (H, W) of the image.
        cells: (h, w) of the grid, rounded up where the stride does not divide a side.

    Raises:
        ValueError: no stride from 2 to 16 gives this grid.
    """
    for stride in STRIDES:
        if tuple(-(-side // stride) for side in size) == tuple(cells):
            return stride
    raise ValueError(
        f"{cells[0]}x{cells[1]} cells (hxw) do not cover {size[0]}x{size[1]} pixels (HxW) at a stride from 2 to 16"
    )


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _enlarged(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """(c, h, w) cells to (c, H, W) pixels: a whole number of pixels per cell, the rest cut off."""
    stride = stride_of(size, (cells.shape[1], cells.shape[2]))
    pixels = resize(cells[None], (cells.shape[1] * stride, cells.shape[2] * stride))[0]
    return pixels[:, : size[0], : size[1]]


def _over_maximum(maps: Tensor) -> Tensor:
    """Maps over the largest value of all of them; zeros stay zeros."""
    return maps / maps.max().clamp(min=torch.finfo(maps.dtype).tiny) if maps.numel() else maps


def _seeds(scores: Tensor, edge: Tensor) -> Tensor:
    """Scores on the edges' grid; the powers of negative ones would not be numbers."""
    cells = (edge.shape[-2], edge.shape[-1])
    stride_of((scores.shape[1], scores.shape[2]), cells)  # refuses edges of another image
    return resize(_at_least_float32(scores)[None], cells)[0].clamp(min=0)


@torch.no_grad()
def irn_scores(
    scores: Tensor,
    edge: Tensor,
    background: float = 0.25,
    exponent: float = 1.0,
    radius: int = 5,
    beta: float = 10.0,
    steps: int = 256,
) -> Tensor:
    """IRN's scores: one walk of the classes against a constant (first half of sfc.md 7.3; cti.md 8.1).

    Args:
        scores: (k, H, W); the background's row is not looked at, and a common factor does not matter.
        edge: (h, w) in [0, 1].
        background: the constant; the largest score of all classes after the walk is 1.
        exponent: of the scores, before the walk.
        radius: of the walk's pairs, in cells.
        beta: exponent of the affinities.
        steps: length of the walk.

    Returns:
        (k, H, W).

    Raises:
        ValueError: sizes do not fit, or values that are not finite.
    """
    size = (scores.shape[1], scores.shape[2])
    if len(scores) == 1:
        return constant_background(_at_least_float32(scores[1:]), background)
    seeds = _seeds(scores[1:], edge) ** exponent
    return constant_background(_over_maximum(_enlarged(propagate(seeds, edge, radius, beta, steps), size)), background)


def irn_label(scores: Tensor, edge: Tensor, keys: Tensor, **settings: Any) -> Tensor:
    """Class ids (H, W) int64 of the best of `irn_scores`, whose settings are taken."""
    return labels_from_maps(irn_scores(scores, edge, **settings), keys)


@torch.no_grad()
def sfc_scores(
    scores: Tensor,
    edge: Tensor,
    background: float = 0.25,
    exponent: float = 1.3,
    second_exponent: float = 1.3,
    radius: int = 5,
    beta: float = 10.0,
    steps: int = 256,
) -> Tensor:
    """SFC's scores: IRN's walk, plus a sharper one in which the background walks too (sfc.md 7.3).

    Both use one matrix, so that all 2 k - 1 channels walk together.

    Args:
        scores: (k, H, W), M_W + 0.3 M_P.
        edge: (h, w) in [0, 1].
        background: constant of the first walk.
        exponent: of the scores, before either walk.
        second_exponent: of the second walk's scores, upon `exponent`.
        radius: of the walk's pairs, in cells.
        beta: exponent of the affinities.
        steps: length of the walk.

    Returns:
        (k, H, W).

    Raises:
        ValueError: sizes do not fit, or values that are not finite.
    """
    seeds = _seeds(scores, edge) ** exponent
    both = torch.cat([seeds[1:], seeds**second_exponent])
    size = (scores.shape[1], scores.shape[2])
    walked = _enlarged(propagate(both, edge, radius, beta, steps), size)
    first, second = walked[: len(scores) - 1], walked[len(scores) - 1 :]
    return constant_background(_over_maximum(first), background) + _over_maximum(second)


def sfc_label(scores: Tensor, edge: Tensor, keys: Tensor, **settings: Any) -> Tensor:
    """Class ids (H, W) int64 of the best of `sfc_scores`, whose settings are taken."""
    return labels_from_maps(sfc_scores(scores, edge, **settings), keys)


@torch.no_grad()
def psa_scores(
    foreground: Tensor, affinity: Tensor, background: float = 0.39, beta: float = 8.0, steps: int = 64
) -> Tensor:
    """PSA's scores: classes and a constant background, averaged over each cell, walk and are enlarged (cti.md 8.2).

    Args:
        foreground: (k - 1, H, W) in [0, 1].
        affinity: (P, h, w), of `ops.random_walk.feature_affinity`.
        background: the constant, the seed's best threshold.
        beta: exponent of the affinities.
        steps: length of the walk.

    Returns:
        (k, H, W).

    Raises:
        ValueError: sizes do not fit, or values that are not finite.
    """
    maps = constant_background(_at_least_float32(foreground), background)
    size, cells = (maps.shape[1], maps.shape[2]), (affinity.shape[1], affinity.shape[2])
    stride = stride_of(size, cells)
    # what is beyond the image scores nothing, the background neither
    whole = F.pad(maps, (0, cells[1] * stride - size[1], 0, cells[0] * stride - size[0]))
    return _enlarged(walk(F.avg_pool2d(whole, stride), affinity, beta, steps), size)


def psa_label(foreground: Tensor, affinity: Tensor, keys: Tensor, **settings: Any) -> Tensor:
    """Class ids (H, W) int64 of the best of `psa_scores`, whose settings are taken."""
    return labels_from_maps(psa_scores(foreground, affinity, **settings), keys)
