"""Random walks over affinities of near cells, never as an N x N matrix.

Notation: C channels, h x w cells, N = h w, P pairs per cell (`path_offsets`). Affinities (P, h, w) as in
`ops/affinity.py`. Sources: sfc.md section 7.3 (IRN), cti.md section 8.2 (PSA).
"""

import math
import warnings
from functools import cache, lru_cache

import torch
from torch import Tensor

from frugalseg.ops.affinity import affinity_from_edges, feature_affinity, inner_pairs
from frugalseg.ops.paths import offsets_within, path_offsets, radius_of, region, shifted

__all__ = ["affinity_from_edges", "feature_affinity", "inner_pairs", "path_offsets", "propagate", "walk"]


@lru_cache(maxsize=16)
def _pattern(radius: int, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Places of a walk's non-zeros in CSR form, 4 MB for 94 x 125 cells at radius 5.

    Returns:
        Row starts (N + 1,) and columns (M,), int32, and which neighbours lie in the map, (h, w, 2 P + 1) bool,
        neighbours in the order of `_both_ways`.
    """
    neighbours = _both_ways(radius)
    inside = torch.zeros(len(neighbours), *size, dtype=torch.bool)
    for mask, offset in zip(inside, neighbours, strict=True):
        mask[region(offset, size)] = True
    inside = inside.permute(1, 2, 0).contiguous()
    cells = torch.arange(size[0] * size[1], dtype=torch.int32).view(*size, 1)
    steps = torch.tensor([dy * size[1] + dx for dy, dx in neighbours], dtype=torch.int32)
    starts = torch.zeros(cells.numel() + 1, dtype=torch.int32)
    torch.cumsum(inside.sum(dim=2).flatten(), dim=0, out=starts[1:])
    return starts.to(device), (cells + steps)[inside].to(device), inside.to(device)


@cache
def _both_ways(radius: int) -> tuple[tuple[int, int], ...]:
    """Offsets, their opposites and (0, 0), from the first neighbour in reading order to the last."""
    offsets = offsets_within(radius)
    return tuple(sorted([*offsets, *((-dy, -dx) for dy, dx in offsets), (0, 0)]))


def _generator(affinity: Tensor, beta: float, dtype: torch.dtype) -> Tensor:
    """One step of the walk minus the identity, as sparse (N, N): row i weighs the neighbours of cell i, sums are 0.

    Weights are float64 until they are stored: with float32 sums, errors after 256 steps are 30 to 200 times larger.
    """
    radius, size = radius_of(len(affinity)), (affinity.shape[1], affinity.shape[2])
    neighbours = _both_ways(radius)
    weights = affinity.new_zeros(len(neighbours), *size, dtype=torch.float64)
    for offset, pairs in zip(offsets_within(radius), affinity.double() ** beta, strict=True):
        here = region(offset, size)
        weights[neighbours.index(offset), *here] = pairs[here]
        weights[neighbours.index((-offset[0], -offset[1])), *shifted(here, offset)] = pairs[here]
    weights /= 1 + weights.sum(dim=0)
    weights[neighbours.index((0, 0))] = -weights.sum(dim=0)
    starts, columns, inside = _pattern(radius, size, affinity.device)
    values = weights.permute(1, 2, 0)[inside].to(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        cells = size[0] * size[1]
        return torch.sparse_csr_tensor(starts, columns, values, (cells, cells), check_invariants=False)


@cache
def power_series(steps: int, tolerance: float) -> tuple[float, ...]:
    """Chebyshev coefficients of t^steps on [-1, 1], without those that together stay below `tolerance`.

    t^n = 2^(1-n) sum' C(n, k) T_(n-2k)(t); the tail of the binomial distribution beyond m is at most
    2 exp(-m^2 / 2n) (Hoeffding), so that about sqrt(2 n ln(2 / tolerance)) terms do.

    Args:
        steps: the exponent n.
        tolerance: largest error for any t.

    Returns:
        Factors of T_0, T_1, ...; `steps + 1` of them where nothing can be left out.
    """
    degree = min(steps, math.ceil(math.sqrt(2 * steps * math.log(2 / tolerance))))
    series = [0.0] * (degree + 1)
    # binomials from the middle outwards, each from the one before: whole numbers of this size take seconds
    factor = 2 * math.comb(steps, steps // 2) / 2**steps
    for m in range(steps % 2, degree + 1, 2):
        series[m] = factor
        factor *= (steps - m) / (steps + m + 2)
    series[0] /= 2
    return tuple(series)


def _many_steps(generator: Tensor, columns: Tensor, steps: int) -> Tensor:
    """(1 + generator)^steps @ columns, where the eigenvalues of 1 + generator are real and lie in [-1, 1]."""
    # a hundredth of the rounding unit: what is left out is not to be seen
    series = power_series(steps, torch.finfo(columns.dtype).eps / 100)
    if len(series) > steps:
        for _ in range(steps):
            columns = torch.addmm(columns, generator, columns)
        return columns
    # T_(k+1) - T_k = T_k - T_(k-1) + 2 (t - 1) T_k: differences (Reinsch) keep smooth maps exact, which fill the result
    change = generator @ columns
    term = columns + change
    result = series[0] * columns + series[1] * term
    for factor in series[2:]:
        change = torch.addmm(change, generator, term, alpha=2)
        term = term + change
        if factor:
            result.add_(term, alpha=factor)
    return result


def _check(scores: Tensor, affinity: Tensor) -> None:
    if scores.dim() != 3 or affinity.dim() != 3 or scores.shape[1:] != affinity.shape[1:]:
        raise ValueError(
            f"scores (C, h, w) and affinity (P, h, w) must have the same cells, not {tuple(scores.shape)} and"
            f" {tuple(affinity.shape)}"
        )
    if not (torch.isfinite(scores).all() and torch.isfinite(affinity).all()):
        raise ValueError("scores and affinities of a walk must be finite")
    if (affinity < 0).any():
        raise ValueError("affinities of a walk must not be negative")


@torch.no_grad()
def walk(scores: Tensor, affinity: Tensor, beta: float = 10.0, steps: int = 256) -> Tensor:
    """Spread scores by a random walk: x T^steps for all channels at once (sfc.md 7.3; PSA: beta 8, 64 steps).

    T is the symmetric matrix of affinities to the power beta, ones on its diagonal, with columns divided by their sums
    d. A step replaces each score by a weighted mean over its neighbours, so constant maps stay, nothing leaves the
    range of the scores, and the sum of d * scores is conserved.

    T is similar to a symmetric matrix and its eigenvalues lie in [-1, 1], so that its power is evaluated by Chebyshev's
    recurrence: 105 sparse products instead of 256 in float32, with an error below rounding. Float32 results were within
    1e-5 of float64 ones for scores up to 1, 94 x 125 cells and 256 steps. No gradient.

    Args:
        scores: (C, h, w).
        affinity: (P, h, w), not negative; P tells the radius.
        beta: exponent of the affinities.
        steps: length of the walk; 0 returns the scores.

    Returns:
        (C, h, w), float32, or float64 where one of the two is.

    Raises:
        ValueError: sizes do not fit, no radius has P pairs, values are not finite, or affinities, exponent or steps are
            negative.
    """
    _check(scores, affinity)
    if steps < 0 or beta < 0:
        raise ValueError(f"a walk cannot have {steps} steps or an exponent of {beta}")
    dtype = torch.promote_types(torch.promote_types(scores.dtype, affinity.dtype), torch.float32)
    with torch.autocast(scores.device.type, enabled=False):
        columns = scores.to(dtype).flatten(1).t().contiguous()
        return _many_steps(_generator(affinity, beta, dtype), columns, steps).t().reshape(scores.shape)


def propagate(scores: Tensor, edge: Tensor, radius: int = 5, beta: float = 10.0, steps: int = 256) -> Tensor:
    """IRN's walk: scores fade on edges, then spread along paths without edges (sfc.md 7.3). No gradient.

    Args:
        scores: (C, h, w).
        edge: (h, w) in [0, 1].
        radius: pairs are closer than that, in cells.
        beta: exponent of the affinities.
        steps: length of the walk.

    Returns:
        (C, h, w), float32, or float64 where one of the two is.

    Raises:
        ValueError: see `walk`.
    """
    with torch.no_grad():
        edge = edge.to(torch.promote_types(edge.dtype, torch.float32))
        return walk(scores * (1 - edge), affinity_from_edges(edge, radius), beta, steps)
