"""Affinities of near cells: from edges on the path between them (IRN), or from their features (PSA).

Notation: h x w cells, P pairs per cell, in the order of `paths.path_offsets`. An affinity map (..., P, h, w) holds at
[p, y, x] the affinity of the cells (y, x) and (y + dy, x + dx), and 0 where the partner lies outside. Sources: sfc.md
section 7.2 (IRN), cti.md section 8.2 (PSA).
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from frugalseg.ops.paths import CELL, Region, offsets_within, plan, radius_of, region, shifted


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


class _PathMinimum(torch.autograd.Function):
    """Minimum of a map over all paths, (N, h, w) -> (N, P, h, w), by the steps of `plan`.

    Only the result is kept for the gradient, which goes to one cell of each path that attains the minimum.
    """

    @staticmethod
    def forward(ctx: Any, cells: Tensor, radius: int) -> Tensor:
        size = (cells.shape[1], cells.shape[2])
        minima = cells.new_zeros(len(cells), len(offsets_within(radius)), *size)
        for p, (offset, operands) in enumerate(zip(offsets_within(radius), plan(radius), strict=True)):
            place = region(offset, size)
            out = minima[:, p, *place]
            views = [_view(cells, minima, node, shifted(place, by)) for node, by in operands]
            out.copy_(views[0])
            for view in views[1:]:
                torch.minimum(out, view, out=out)
        ctx.save_for_backward(cells, minima)
        ctx.radius = radius
        return minima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        cells, minima = ctx.saved_tensors
        size = (cells.shape[1], cells.shape[2])
        of_cells, of_minima = torch.zeros_like(cells), gradient.clone()
        for p in reversed(range(minima.shape[1])):
            place = region(offsets_within(ctx.radius)[p], size)
            least, rest = minima[:, p, *place], of_minima[:, p, *place]
            for node, by in plan(ctx.radius)[p]:
                there = shifted(place, by)
                passed = rest * (_view(cells, minima, node, there) == least)
                _view(of_cells, of_minima, node, there).add_(passed)
                rest.sub_(passed)
        return of_cells, None


def _view(cells: Tensor, minima: Tensor, node: int, place: Region) -> Tensor:
    return cells[:, *place] if node == CELL else minima[:, node, *place]


def affinity_from_edges(edge: Tensor, radius: int) -> Tensor:
    """One minus the strongest edge on the straight path between two cells (sfc.md 7.2).

    Differentiable. At radius 10 with 32 maps of 128 x 128 the result has 319 MB; the gradient takes as much again.

    Args:
        edge: (h, w) or (N, h, w), in [0, 1].
        radius: pairs are closer than that, in cells.

    Returns:
        (P, h, w) or (N, P, h, w), float32 or what is wider.

    Raises:
        ValueError: another number of dimensions, or a radius below 2.
    """
    if edge.dim() not in (2, 3):
        raise ValueError(f"edges must be (h, w) or (N, h, w), not {tuple(edge.shape)}")
    # min(1 - e) is 1 - max(e) to the last bit
    cells = 1 - _at_least_float32(edge)
    minima = cast(Tensor, _PathMinimum.apply(cells if edge.dim() == 3 else cells[None], radius))
    return minima if edge.dim() == 3 else minima[0]


class _FeatureAffinity(torch.autograd.Function):
    """exp(-mean |f_i - f_j|), (N, D, h, w) -> (N, P, h, w); differences are computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, radius: int) -> Tensor:
        size = (features.shape[2], features.shape[3])
        affinity = features.new_zeros(len(features), len(offsets_within(radius)), *size)
        for p, offset in enumerate(offsets_within(radius)):
            here = region(offset, size)
            distance = (features[:, :, *here] - features[:, :, *shifted(here, offset)]).abs_().mean(dim=1)
            affinity[:, p, *here] = distance.neg_().exp_()
        ctx.save_for_backward(features, affinity)
        ctx.radius = radius
        return affinity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        features, affinity = ctx.saved_tensors
        size = (features.shape[2], features.shape[3])
        result = torch.zeros_like(features)
        factor = gradient * affinity / -features.shape[1]
        for p, offset in enumerate(offsets_within(ctx.radius)):
            here = region(offset, size)
            there = shifted(here, offset)
            part = (features[:, :, *here] - features[:, :, *there]).sign_().mul_(factor[:, p, *here].unsqueeze(1))
            result[:, :, *here] += part
            result[:, :, *there] -= part
        return result, None


def feature_affinity(features: Tensor, radius: int = 5) -> Tensor:
    """exp(-mean over channels of |f_i - f_j|), PSA's affinity (cti.md 8.2). Differentiable.

    Args:
        features: (D, h, w) or (N, D, h, w).
        radius: pairs are closer than that, in cells.

    Returns:
        (P, h, w) or (N, P, h, w), float32 or what is wider.

    Raises:
        ValueError: another number of dimensions, or a radius below 2.
    """
    if features.dim() not in (3, 4):
        raise ValueError(f"features must be (D, h, w) or (N, D, h, w), not {tuple(features.shape)}")
    wide = _at_least_float32(features)
    affinity = cast(Tensor, _FeatureAffinity.apply(wide if features.dim() == 4 else wide[None], radius))
    return affinity if features.dim() == 4 else affinity[0]


def inner_pairs(affinity: Tensor) -> Tensor:
    """Affinities without the pairs that PSA leaves out, those from cells near the left, right or lower border.

    PSA pairs a cell only where all of its partners lie in the map (golden/cti, `psa_affinity`); IRN takes all pairs.

    Args:
        affinity: (..., P, h, w).

    Returns:
        Same shape, 0 (or False) outside rows 0 to h - R and columns R - 1 to w - R, where R is the radius.

    Raises:
        ValueError: no radius has P pairs.
    """
    height, width = affinity.shape[-2:]
    reach = radius_of(affinity.shape[-3]) - 1
    inner = torch.zeros_like(affinity)
    rows, columns = slice(0, max(0, height - reach)), slice(reach, max(reach, width - reach))
    inner[..., rows, columns] = affinity[..., rows, columns]
    return inner
