"""Which simplex of the permutohedral lattice a point lies in (Adams, Baek and Davis, Eurographics 2010).

P points with d features. The lattice is Z^(d+1) modulo (1, ..., 1): a vertex is a class of integer vectors, of which
two are the same if they differ by a multiple of (1, ..., 1). A point x of that space lies in the simplex of

    y, y + e_a, y + e_a + e_b, ...      y = round(x); a, b, ... = axes in falling order of x - y

and its barycentric weights are the differences of successive entries of x - y in that order. This is the simplex that
the paper finds by way of the nearest remainder-0 point, without its cases. Every vertex becomes one integer, its code,
linear in the vector: the vertices of a simplex, and a vertex and its neighbours, differ by constants.

Points that lie on a face have vertices of weight 0, which matter because blurring passes through vertices that exist.
Which ones they have depends on rounding, so points are embedded in float32, in the order of operations of the authors'
code: so marginals of the CRF agree with pydensecrf's to 1e-5; otherwise single pixels differ by up to 0.1.
"""

from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

MAX_FEATURES = 7
_AXIS_BITS = 3
_FRACTION_BITS = 24
_LARGEST_CODE = 2**52
"""Codes are sums of float64 products, exact so far."""


class Simplices(NamedTuple):
    """The d + 1 vertices around each of P points.

    Attributes:
        codes: (P, d + 1) int32 where all fit, else int64.
        weights: (P, d + 1) barycentric weights, float32.
        steps: by how much a code rises along each of the d + 1 axes.
    """

    codes: Tensor
    weights: Tensor
    steps: list[int]


def find_simplices(features: Tensor, groups: Tensor | None = None) -> Simplices:
    """Find the simplex of each point.

    Args:
        features: (d, P) float32 in units of the kernel's standard deviation, 1 <= d <= 7, P > 0.
        groups: (P,) int64 from 0; points of different groups share no vertices.

    Raises:
        ValueError: wrong number of features, no points, or features so far apart that codes would overflow.
    """
    d, points = features.shape
    if not points or not 0 < d <= MAX_FEATURES:
        raise ValueError(f"a lattice needs points with 1 to {MAX_FEATURES} features, got {points} with {d}")
    embedded = _embed(features)
    nearest = (embedded * (1 / (d + 1))).round_()
    steps, lowest, size = _numbering(nearest)
    rising = nearest.new_tensor(steps, dtype=torch.float64)
    code = (rising[None] @ nearest.double())[0] - lowest
    if groups is not None:
        code += groups * size
        size *= int(groups.max()) + 1
    if size > _LARGEST_CODE:
        raise ValueError("features span too many lattice vertices: the kernel's widths are too small")
    rest, axes = _falling(embedded.sub_(nearest, alpha=d + 1))
    # sorting int32 takes half the time; filling columns one by one is faster than stacking or transposing
    codes = code.new_empty(points, d + 1, dtype=torch.int32 if size < 2**31 else torch.int64)
    weights = features.new_empty(points, d + 1)
    codes[:, 0], weights[:, 0] = code, 1 - (rest[0] - rest[d])
    for k in range(d):
        code = code + rising.index_select(0, axes[k])
        codes[:, k + 1], weights[:, k + 1] = code, rest[k] - rest[k + 1]
    return Simplices(codes, weights, steps)


def _embed(features: Tensor) -> Tensor:
    """Points (d, P) on the hyperplane of sum 0, (d + 1, P), d + 1 times as large as in the module's description.

    The scale makes splat, blur and slice together a Gaussian of unit width (section 3.1 of the paper).
    """
    d = len(features)
    # through tensors, since the authors' constants are float32
    width = torch.tensor(sqrt(2 / 3) * (d + 1), dtype=torch.float32).item()
    embedded = features.new_empty(d + 1, features.shape[1])
    total = torch.zeros_like(features[0])
    for j in range(d, 0, -1):
        scaled = features[j - 1] * torch.tensor(width / sqrt((j + 1) * j), dtype=torch.float32).item()
        torch.sub(total, scaled * j, out=embedded[j])
        total += scaled
    embedded[0] = total
    return embedded


def _numbering(vectors: Tensor) -> tuple[list[int], int, int]:
    """Number the classes of integer vectors: differences of adjacent entries are the digits of a mixed-radix number.

    Args:
        vectors: (d + 1, P); room is made for those that are greater by 1 in any entry, and for all their neighbours.

    Returns:
        By how much the number rises along each axis (in sum 0), the lowest number, how many there are.
    """
    # aminmax(dim=1) takes ten times as long
    differences = vectors[:-1] - vectors[1:]
    low, high = differences.amin(dim=1), differences.amax(dim=1)
    digits = [1]
    for span in (high - low).tolist():
        digits.append(digits[-1] * (int(span) + 5))
    lowest = sum(digit * (int(first) - 2) for digit, first in zip(digits[:-1], low.tolist(), strict=True))
    ends = [0, *digits[:-1], 0]
    return [after - before for before, after in pairwise(ends)], lowest, digits[-1]


def _falling(rest: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Sort the rows (d + 1, P) at each point, largest first, the lower row first among equals.

    A bubble sort of whole rows, which takes a tenth of the time of torch.sort over so few. Every entry, at most 4 in
    size, becomes an integer that carries its row in the last bits.

    Returns:
        Sorted entries / (d + 1), float32, and their int32 row numbers.
    """
    last = len(rest) - 1
    rows = [row + (last - j) for j, row in enumerate((rest * 2**_FRACTION_BITS).int() << _AXIS_BITS)]
    for end in range(last, 0, -1):
        for i in range(end):
            rows[i], rows[i + 1] = torch.maximum(rows[i], rows[i + 1]), torch.minimum(rows[i], rows[i + 1])
    scale = 2.0**-_FRACTION_BITS / len(rest)
    return [(row >> _AXIS_BITS) * scale for row in rows], [last - (row & (2**_AXIS_BITS - 1)) for row in rows]
