"""Gaussian filtering of scattered points on the permutohedral lattice (Adams, Baek and Davis, Eurographics 2010).

P points, M lattice vertices that have a point nearby, C channels. Values are splatted to the vertices, blurred along
each axis of the lattice in turn, and sliced at the points. Each step is a sum over bags of rows, for which torch has
fast code on CPU and GPU. After the vertices stands one row that is always zero, in place of neighbours that do not
exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.ops.simplices import find_simplices

NORM_EPS = 1e-20


@dataclass(frozen=True)
class Bags:
    """A sparse matrix with as many entries in every row.

    Attributes:
        columns: (rows, entries) int32.
        weights: (rows, entries) float32, the entries.
    """

    columns: Tensor
    weights: Tensor

    def sum(self, values: Tensor) -> Tensor:
        """Product with `values` (columns, C), float32: (rows, C)."""
        return F.embedding_bag(self.columns, values, mode="sum", per_sample_weights=self.weights)


@dataclass(frozen=True)
class RaggedBags:
    """A sparse matrix.

    Attributes:
        columns: (entries,) int32, row by row.
        weights: (entries,) float32, the entries.
        offsets: (rows,) int32, where each row begins.
    """

    columns: Tensor
    weights: Tensor
    offsets: Tensor

    def sum(self, values: Tensor) -> Tensor:
        """Product with `values` (columns, C), float32: (rows, C)."""
        return F.embedding_bag(self.columns, values, self.offsets, mode="sum", per_sample_weights=self.weights)


@dataclass(frozen=True)
class Lattice:
    """Filter of values at fixed points: three kinds of matrices, applied one after the other.

    Attributes:
        splat: (M + 1, P).
        blurs: per axis (M + 1, M + 1), in every row the vertex itself and its two neighbours.
        slice: (P, M + 1).
    """

    splat: RaggedBags
    blurs: Sequence[Bags]
    slice: Bags

    def filter(self, values: Tensor) -> Tensor:
        """Weighted sum over all points: (P, C) float32 -> (P, C)."""
        values = self.splat.sum(values)
        for blur in self.blurs:
            values = blur.sum(values)
        return self.slice.sum(values)

    def normalised(self, weight: float = 1.0) -> "Lattice":
        """The filter weight * D k D with D = 1 / sqrt(k 1), where k is the present one."""
        norm = self.filter(self.slice.weights.new_ones(len(self.slice.weights), 1)).add_(NORM_EPS).rsqrt_()
        splat = replace(self.splat, weights=self.splat.weights * norm[:, 0].index_select(0, self.splat.columns))
        return Lattice(splat, self.blurs, replace(self.slice, weights=self.slice.weights * (norm * weight)))


def build_lattice(features: Tensor, groups: Tensor | None = None) -> Lattice:
    """Lattice whose filter weighs another point by about exp(-distance^2 / 2).

    Args:
        features: (d, P) float32 in units of the kernel's standard deviation, 1 <= d <= 7.
        groups: (P,) int64 from 0; points of different groups do not see each other.

    Raises:
        ValueError: wrong number of features, no points, or features so far apart that vertices cannot be numbered.
    """
    codes, weights, steps = find_simplices(features, groups)
    points, size = codes.shape
    ordered, order = torch.sort(codes.view(-1), stable=True)
    unique, vertex, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
    # index_select and scatter_ take a fifth of the time of indexing with brackets
    inverse = torch.empty_like(order, dtype=torch.int32).scatter_(0, order, vertex.int())
    owner = torch.arange(points, dtype=torch.int32, device=codes.device).repeat_interleave(size).index_select(0, order)
    # the last bag is empty: the row of zeros
    offsets = F.pad(counts.cumsum(0, dtype=torch.int32), (1, 0))
    splat = RaggedBags(owner, weights.view(-1).index_select(0, order), offsets)
    scale = 1 / (1 + 2.0 ** (1 - size))
    blurs = _blurs([_neighbours(unique, step) for step in steps])
    return Lattice(splat, blurs, Bags(inverse.view(points, size), weights.mul_(scale)))


def _blurs(indices: Sequence[Tensor]) -> list[Bags]:
    """Blur matrices of the given neighbours; all share one tensor of weights."""
    weight = torch.tensor([1.0, 0.5, 0.5], device=indices[0].device).repeat(len(indices[0]), 1)
    return [Bags(index, weight) for index in indices]


def _neighbours(codes: Tensor, step: int) -> Tensor:
    """Rows of all vertices and their neighbours along one axis.

    Args:
        codes: (M,) codes of the vertices, rising.
        step: by how much a code rises along the axis.

    Returns:
        (M + 1, 3) int32, M where there is no neighbour.
    """
    none = len(codes)
    wanted = codes + step
    place = _search(codes, wanted).clamp_(max=none - 1)
    above = torch.where(codes.index_select(0, place) == wanted, place, none)
    rows = torch.arange(none, dtype=torch.int32, device=codes.device)
    index = torch.full((none + 1, 3), none, dtype=torch.int32, device=codes.device)
    index[:-1, 0] = rows
    index[:-1, 1] = above
    index[:, 2].scatter_(0, above, rows)
    # all vertices without a neighbour above have reported to the last row
    index[-1] = none
    return index


def _search(codes: Tensor, wanted: Tensor) -> Tensor:
    """Where to find codes, both rising; NumPy makes use of that and takes half of torch's time."""
    if codes.is_cuda:
        return torch.searchsorted(codes, wanted)
    return torch.from_numpy(np.searchsorted(codes.numpy(), wanted.numpy()))


def side_by_side(lattices: Sequence[Lattice]) -> Lattice:
    """One lattice whose filter is the sum of the filters of several over the same points.

    Their rows stand one after the other; a lattice with fewer axes rests in the last blurs.
    """
    splats, slices, moves, rows, entries = [], [], [], 0, 0
    axes = max(len(lattice.blurs) for lattice in lattices)
    for lattice in lattices:
        splat, neighbours = lattice.splat, [blur.columns for blur in lattice.blurs]
        splats.append((splat.columns, splat.weights, splat.offsets + entries))
        slices.append((lattice.slice.columns + rows, lattice.slice.weights))
        resting = torch.full_like(neighbours[0], len(splat.offsets) - 1)
        resting[:, 0] = neighbours[0][:, 0]
        moves.append([move + rows for move in (*neighbours, *[resting] * (axes - len(neighbours)))])
        rows += len(splat.offsets)
        entries += len(splat.columns)
    return Lattice(
        RaggedBags(*(torch.cat(parts) for parts in zip(*splats, strict=True))),
        _blurs([torch.cat(parts) for parts in zip(*moves, strict=True)]),
        Bags(*(torch.cat(parts, dim=1) for parts in zip(*slices, strict=True))),
    )
