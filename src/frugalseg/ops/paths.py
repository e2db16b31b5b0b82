"""Neighbours of a cell within a radius, the straight paths to them, and how their minima are computed together.

Offsets are (dy, dx) in cells, one of each pair of opposite ones. A path holds all cells of its offset's bounding box
whose distance to the straight line is below 1, both ends included. Sources: sfc.md section 7.2; golden/cti README,
`irn_propagate`.
"""

from functools import cache

import torch
from torch import Tensor

Offset = tuple[int, int]
Region = tuple[slice, slice]

CELL = -1
"""The node of a plan that stands for the map itself."""


def path_cells(offset: Offset) -> tuple[Offset, ...]:
    """Cells of the path from (0, 0) to `offset`, row by row."""
    dy, dx = offset
    return tuple(
        (y, x)
        for y in range(dy + 1)
        for x in range(min(0, dx), max(0, dx) + 1)
        # squared distance to the line, times the squared length
        if (y * dx - x * dy) ** 2 < dy * dy + dx * dx
    )


@cache
def offsets_within(radius: int) -> tuple[Offset, ...]:
    """Offsets shorter than `radius`, those of short paths first, as a tuple; see `path_offsets`."""
    if radius < 2:
        raise ValueError(f"a radius of {radius} holds no neighbours; it must be at least 2")
    right = [(0, x) for x in range(1, radius)]
    below = [(y, x) for y in range(1, radius) for x in range(1 - radius, radius) if y * y + x * x < radius * radius]
    return tuple(sorted(right + below, key=lambda offset: len(path_cells(offset))))


def path_offsets(radius: int) -> Tensor:
    """Offsets (dy, dx) of all pairs closer than `radius`: 34 for radius 5, 152 for radius 10.

    The order is the reference's: first those to the right, then row by row, sorted stably by number of path cells.

    Args:
        radius: in cells, at least 2.

    Returns:
        (P, 2) int64; dy >= 0, and dx > 0 where dy = 0.

    Raises:
        ValueError: a radius below 2.
    """
    return torch.tensor(offsets_within(radius))


def radius_of(pairs: int) -> int:
    """The radius that has so many offsets.

    Raises:
        ValueError: none has.
    """
    radius = 2
    while len(offsets_within(radius)) < pairs:
        radius += 1
    if len(offsets_within(radius)) != pairs:
        raise ValueError(f"{pairs} affinities per cell: no radius has as many (radius 5 has 34, radius 10 has 152)")
    return radius


def region(offset: Offset, size: tuple[int, int]) -> Region:
    """Rows and columns of the cells whose partner at `offset`, of any sign, lies in the map; may be empty."""
    top, left = max(0, -offset[0]), max(0, -offset[1])
    # an end before its start would be read from the back once it is shifted below zero
    bottom = max(top, size[0] - max(0, offset[0]))
    right = max(left, size[1] - max(0, offset[1]))
    return slice(top, bottom), slice(left, right)


def shifted(place: Region, by: Offset) -> Region:
    """The region moved by an offset."""
    rows, columns = place
    return slice(rows.start + by[0], rows.stop + by[0]), slice(columns.start + by[1], columns.stop + by[1])


Operand = tuple[int, Offset]


@cache
def plan(radius: int) -> tuple[tuple[Operand, ...], ...]:
    """How to get an extremum over every path from those over shorter paths.

    An extremum over a union of sets is that of the sets' extrema, even where they overlap. Per path the fewest shifted
    shorter paths are sought (greedily) that cover it: at radius 10, 325 of them stand for 2,134 cells.

    Args:
        radius: see `path_offsets`.

    Returns:
        Per offset its operands (node, shift): a node is the position of an earlier offset, or `CELL`.
    """
    width = 4 * radius  # rows of the bit masks are so wide that no shift wraps round

    def mask(cells: tuple[Offset, ...]) -> int:
        return sum(1 << (y * width + x + 2 * radius) for y, x in cells)

    nodes = [(CELL, mask(((0, 0),)))]
    steps = []
    for place, offset in enumerate(offsets_within(radius)):
        path = mask(path_cells(offset))
        moved = [
            (covered, (node, (y, x)))
            for y, x in path_cells(offset)
            for node, cells in nodes
            # columns to the left are a shift to the right
            if not (covered := _shift(cells, y * width + x)) & ~path
        ]
        steps.append(_cover(path, moved))
        nodes.append((place, path))
    return tuple(steps)


def _shift(bits: int, by: int) -> int:
    return bits << by if by >= 0 else bits >> -by


def _cover(path: int, moved: list[tuple[int, Operand]]) -> tuple[Operand, ...]:
    """Greedy set cover."""
    operands = []
    while path:
        left = path
        covered, operand = max(moved, key=lambda entry: (entry[0] & left).bit_count())
        operands.append(operand)
        path &= ~covered
    return tuple(operands)
