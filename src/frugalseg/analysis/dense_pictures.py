"""Pictures of dense features: principal components as colours, clusters, matched points, nearest neighbours.

Features come as maps (D, h, w) beside their images (H, W, 3); a cell is of `stride` x `stride` pixels, and the last row
and column of cells may reach beyond the image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import normalize

from frugalseg.analysis.pictures import Picture, captioned, grid
from frugalseg.ops.palette import colourise, heat, overlay

TAILS = (1.0, 99.0)
"""Percentiles of a component that become its darkest and its brightest value."""
NOBODY = np.array((160, 160, 160), dtype=np.uint8)
GAP = 16
"""Pixels between two views."""


class Components(NamedTuple):
    """The first three principal components of some features."""

    mean: Tensor
    """(D,) float64."""
    vectors: Tensor
    """(D, 3) float64, orthonormal; one of them up to its sign is fixed by `fit_components`."""
    low: Tensor
    """(3,) what is painted as 0."""
    high: Tensor
    """(3,) what is painted as 255."""


def fit_components(maps: Sequence[Tensor]) -> Components:
    """Principal components of all cells of all maps.

    A component's sign is arbitrary. It is chosen so that the third moment of its values is not negative: what stands
    out from the rest is bright, however the channels of a net happen to be ordered or signed.

    Args:
        maps: (D, h, w) each, of any sizes; D at least 3.

    Raises:
        ValueError: no maps, or fewer than 3 channels.
    """
    if not maps or maps[0].shape[0] < 3:
        raise ValueError("principal components need at least one map and three channels")
    points = torch.cat([each.flatten(1).T for each in maps]).double()
    mean = points.mean(dim=0)
    centred = points - mean
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :3]
    values = centred @ vectors
    vectors = vectors * torch.where(values.pow(3).sum(dim=0) < 0, -1.0, 1.0)
    ends = np.percentile((centred @ vectors).numpy(), TAILS, axis=0)
    return Components(mean, vectors, torch.from_numpy(ends[0]), torch.from_numpy(ends[1]))


def component_colours(features: Tensor, components: Components) -> Picture:
    """The three components of a map as red, green and blue.

    Args:
        features: (D, h, w).
        components: of `fit_components`; the same for all images, so that equal colours are equal features.

    Returns:
        (h, w, 3) uint8.
    """
    values = (features.double().permute(1, 2, 0) - components.mean) @ components.vectors
    # a component that never changes is black
    spread = (components.high - components.low).clamp(min=torch.finfo(torch.float64).tiny)
    shares = ((values - components.low) / spread).clamp(0, 1)
    return np.asarray((shares * 255).round().to(torch.uint8).numpy())


def on_pixels(cells: NDArray[np.generic], stride: int, size: tuple[int, int]) -> NDArray[np.generic]:
    """Repeat cells over their pixels.

    Args:
        cells: (h, w) or (h, w, 3).
        stride: pixels per cell.
        size: (H, W) of the image; what reaches beyond it is cut off.
    """
    return cells.repeat(stride, axis=0).repeat(stride, axis=1)[: size[0], : size[1]]


def cluster_colours(clusters: NDArray[np.integer], palette: Picture, classes: NDArray[np.int64] | None) -> Picture:
    """Paint a cluster map.

    Args:
        clusters: (h, w) ids.
        palette: (256, 3).
        classes: (K,) class of each cluster, whose colour it gets; -1 is painted grey. None: cluster k has colour k + 1,
            as colour 0 is often black.

    Returns:
        (h, w, 3) uint8.
    """
    if classes is None:
        return colourise(clusters + 1, palette)
    owners = classes[clusters]
    painted = colourise(np.maximum(owners, 0), palette)
    painted[owners < 0] = NOBODY
    return painted


def legend(names: Sequence[str], colours: Sequence[Sequence[int]], width: int = 160) -> Picture:
    """Names on their colours, one below the other."""
    canvas = Image.new("RGB", (width, 18 * max(len(names), 1)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (name, colour) in enumerate(zip(names, colours, strict=True)):
        red, green, blue = (int(part) for part in colour)
        draw.rectangle((2, 18 * row + 2, 16, 18 * row + 16), fill=(red, green, blue), outline="black")
        draw.text((22, 18 * row + 3), name, fill="black")
    return np.asarray(canvas)


def match_picture(
    views: tuple[Picture, Picture],
    points: tuple[NDArray[np.floating], NDArray[np.floating]],
    strength: NDArray[np.floating],
    factor: int = 1,
) -> Picture:
    """Two views side by side and lines between points that show the same place.

    Args:
        views: (S, S, 3) uint8 each.
        points: (M, 2) x, y in pixels of the first and of the second view, the edge at 0.
        strength: (M,) in [0, 1], painted from blue to red.
        factor: how often pixels are repeated.
    """
    first, second = (view.repeat(factor, axis=0).repeat(factor, axis=1) for view in views)
    shift = first.shape[1] + GAP
    canvas = Image.fromarray(np.full((max(len(first), len(second)), shift + second.shape[1], 3), 255, dtype=np.uint8))
    canvas.paste(Image.fromarray(first), (0, 0))
    canvas.paste(Image.fromarray(second), (shift, 0))
    draw = ImageDraw.Draw(canvas)
    colours = heat(np.asarray(strength)[None])[0].tolist()
    for (x, y), (u, v), colour in zip(factor * points[0], factor * points[1], colours, strict=True):
        ends = [(float(x), float(y)), (float(u) + shift, float(v))]
        draw.line(ends, fill=tuple(colour), width=1)
        for a, b in ends:
            draw.ellipse((a - 3, b - 3, a + 3, b + 3), fill=tuple(colour), outline="black")
    return np.asarray(canvas)


def cosine_map(features: Tensor, query: Tensor) -> Tensor:
    """Cosine of each cell with a vector, (D, h, w) and (D,) -> (h, w) float32."""
    return torch.einsum("dhw,d->hw", normalize(features.float(), dim=0), normalize(query.float(), dim=0))


def neighbour_row(
    images: Sequence[Picture],
    maps: Sequence[Tensor],
    names: Sequence[str],
    stride: int,
    query: tuple[int, int, int],
) -> list[Picture]:
    """A query cell in one image, and how near the cells of the others are to it.

    Colours are from the lowest to the highest cosine of the whole row, the query's own image left out; a ring marks the
    nearest cell of each image.

    Args:
        images: (H, W, 3) uint8 each.
        maps: (D, h, w) each.
        names: captions.
        stride: pixels per cell.
        query: number of the image, row and column of the cell.

    Returns:
        The marked query image, then the others as they come.
    """
    own, row, column = query
    cosines = {k: cosine_map(each, maps[own][:, row, column]) for k, each in enumerate(maps) if k != own}
    pictures = [captioned(with_ring(images[own], (row, column), stride), f"query: {names[own]}")]
    low = min((float(each.min()) for each in cosines.values()), default=0.0)
    high = max((float(each.max()) for each in cosines.values()), default=1.0)
    for k, found in cosines.items():
        best = divmod(int(found.argmax()), found.shape[1])
        shares = ((found - low) / max(high - low, 1e-6)).numpy()
        painted = overlay(images[k], heat(on_pixels(shares, stride, images[k].shape[:2])), 0.6)  # type: ignore[arg-type]
        pictures.append(captioned(with_ring(painted, best, stride), f"{names[k]}: {float(found.max()):.2f}"))
    return pictures


def with_ring(picture: Picture, cell: tuple[int, int], stride: int) -> Picture:
    """Mark the middle of a cell (row, column)."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    y, x = ((place + 0.5) * stride for place in cell)
    radius = max(5.0, min(picture.shape[:2]) / 30)
    for wider, colour in ((1, "black"), (0, "white")):
        reach = radius + wider
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=2)
    draw.point((x, y), fill="white")
    return np.asarray(canvas)


def side_by_side(images: Sequence[Picture], painted: Sequence[Picture], names: Sequence[str]) -> Picture:
    """Pairs of image and painting, as a grid of about twice as many rows as columns of pairs.

    Args:
        images: (H, W, 3) uint8.
        painted: of the same sizes.
        names: captions.
    """
    pairs = [
        captioned(np.concatenate([image, colours], axis=1), name)
        for image, colours, name in zip(images, painted, names, strict=True)
    ]
    return grid(pairs, max(1, round((len(pairs) / 2) ** 0.5)))
