"""Blocks of 32 x 32 pixels that are hidden from the student, for the term of masked cells (mevt.md c.6)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from frugalseg.papers.mevt.matching import image_noise

_APART = 0x5DEECE66
"""Flips bits of an image's seed, so that masks and points are drawn apart; torch's generator reads 32 bits alone."""


def draw_masks(seeds: Sequence[int], views: int, grid: tuple[int, int], ratio: tuple[float, float]) -> Tensor:
    """Masks of the global views: of half of them nothing is hidden, of the others a part that is uniform in `ratio`.

    Args:
        seeds: one per image.
        views: of each image.
        grid: rows and columns of blocks.
        ratio: least and largest part.

    Returns:
        (views, B, *grid) bool in main memory.
    """
    blocks = grid[0] * grid[1]
    noise = image_noise([seed ^ _APART for seed in seeds], views, 2 + blocks)
    part = ratio[0] + noise[..., 1] * (ratio[1] - ratio[0])
    count = torch.where(noise[..., 0] < 0.5, 0, (part * blocks).round())
    rank = noise[..., 2:].argsort(dim=-1).argsort(dim=-1)
    return (rank < count[..., None]).transpose(0, 1).reshape(views, len(seeds), *grid)
