"""Labels of pairs of cells, and how well affinities tell those apart that lie across a class boundary (sfc.md 7.2).

Letters: N images, h x w cells of the edge map, P pairs per cell (`frugalseg.ops.random_walk.path_offsets`). Sources are
the cells all of whose partners lie in the map: rows 0..h-R and columns R-1..w-R for radius R.
"""

import torch
from torch import Tensor

from frugalseg.batch import IGNORE_INDEX
from frugalseg.ops.random_walk import path_offsets

IGNORED, BACKGROUND, FOREGROUND, ACROSS = range(4)
"""Kinds of pairs: a side is not labelled; both are background; both are one foreground class; they differ."""

BINS = 256
"""Resolution in affinity of `boundary_counts`."""


def reduce_labels(mask: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Labels on the grid of the edges: the pixel at stride * i + stride // 2, as Pillow's nearest does (trap 18).

    Args:
        mask: (N, H, W) class ids up to 255.
        stride: pixels per cell.
        size: (h, w) of the grid; where a side is no multiple of the stride, its last cell may take its last pixel.

    Returns:
        (N, h, w) uint8.
    """
    rows, columns = (
        (torch.arange(cells, device=mask.device) * stride + stride // 2).clamp_max(pixels - 1)
        for cells, pixels in zip(size, mask.shape[-2:], strict=True)
    )
    return mask[:, rows[:, None], columns].to(torch.uint8)


def at_sources(maps: Tensor, radius: int) -> Tensor:
    """The part (..., h - R + 1, w - 2R + 2) of (..., h, w) that belongs to sources.

    Raises:
        ValueError: the map has none.
    """
    height, width = maps.shape[-2:]
    if height < radius or width < 2 * radius - 1:
        raise ValueError(
            f"pairs of radius {radius} need a map of at least {radius} x {2 * radius - 1} cells, not {height} x {width}"
        )
    return maps[..., : height - radius + 1, radius - 1 : width - radius + 1]


def at_partner(maps: Tensor, offset: tuple[int, int], radius: int) -> Tensor:
    """The same part, moved by one offset: what the sources' partners have."""
    (dy, dx), (height, width) = offset, maps.shape[-2:]
    return maps[..., dy : height - radius + 1 + dy, radius - 1 + dx : width - radius + 1 + dx]


def pair_kinds(label: Tensor, radius: int) -> Tensor:
    """What each pair is: `IGNORED`, `BACKGROUND`, `FOREGROUND` or `ACROSS`.

    Args:
        label: (N, h, w) uint8 class ids, 0 background, 255 not labelled.
        radius: pairs are closer than that, in cells.

    Returns:
        (N, P, h - R + 1, w - 2R + 2) uint8: 64 MB for 32 maps of 128 x 128 at radius 10.

    Raises:
        ValueError: the map has no sources.
    """
    own = at_sources(label, radius)
    kind = torch.where(own == 0, BACKGROUND, FOREGROUND).to(torch.uint8)
    labelled = own != IGNORE_INDEX
    kinds = []
    for dy, dx in path_offsets(radius).tolist():
        partner = at_partner(label, (dy, dx), radius)
        kinds.append(torch.where(partner == own, kind, ACROSS).mul_(labelled & (partner != IGNORE_INDEX)))
    return torch.stack(kinds, dim=1)


def count_kinds(kinds: Tensor) -> Tensor:
    """(3,) int64, the numbers of `BACKGROUND`, `FOREGROUND` and `ACROSS` pairs."""
    # not bincount, which waits for the device to know how much it needs
    return torch.stack([torch.count_nonzero(kinds == kind) for kind in (BACKGROUND, FOREGROUND, ACROSS)])


def boundary_counts(affinity: Tensor, kinds: Tensor) -> Tensor:
    """Histograms of affinities, which several images and processes can add.

    Args:
        affinity: (..., P, h - R + 1, w - 2R + 2) in [0, 1], the sources' part.
        kinds: of the same shape.

    Returns:
        (2, BINS) int64: pairs within one class, and pairs across a boundary.
    """
    bins = (affinity * BINS).long().clamp_(0, BINS - 1)[kinds != IGNORED]
    across = (kinds == ACROSS)[kinds != IGNORED]
    return torch.bincount(bins + BINS * across, minlength=2 * BINS).view(2, BINS)


def boundary_scores(counts: Tensor) -> dict[str, float]:
    """How well low affinity tells the pairs across a boundary.

    Args:
        counts: (2, BINS) of `boundary_counts`.

    Returns:
        `boundary_ap`, the average precision with the lowest affinity first, and `boundary_share`, the share of such
        pairs, which is the precision of guessing; nothing where there are none.
    """
    within, across = counts.double()
    if not across.sum():
        return {}
    precision = across.cumsum(0) / (within + across).cumsum(0).clamp_min(1)
    share = across.sum() / counts.sum()
    return {"boundary_ap": float((precision * across).sum() / across.sum()), "boundary_share": float(share)}
