"""Pictures of multi-crop views: where the crops lie, and whether matched points mark the same content."""

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from frugalseg.analysis.pictures import Picture, captioned, denormalise, grid
from frugalseg.data.io import read_image
from frugalseg.ops.geometry import area, intersection, matched_points

GLOBAL_COLOURS = ((224, 24, 24), (255, 150, 0))
LOCAL_COLOUR = (0, 170, 255)
HEIGHT = 360
"""Pixels to which source and views are scaled: dots and numbers need room."""
_RADIUS = 5


def views_pictures(
    batch: Any,
    sources: Mapping[str, Path],
    mean: Sequence[float],
    std: Sequence[float],
    local_views: int = 2,
    side: int = 4,
) -> list[Picture]:
    """One picture per image of a `ViewsBatch`.

    First the source image with all boxes (global 1 red, global 2 orange, local blue; dashed where mirrored). Then, per
    pair (global 1, other view), the source and both views with the pair's matched points: a number marks the same
    content in all three.

    Args:
        batch: a `ViewsBatch` on the CPU, its colours changed or not.
        sources: id -> image file.
        mean: of the normalisation.
        std: of the normalisation.
        local_views: how many local views to pair with global view 1.
        side: points per row and column.

    Raises:
        ImageError: a source image cannot be read.
    """
    pictures = []
    for number, name in enumerate(batch["id"]):
        source = read_image(sources[name])
        boxes, flips = batch["box"][number] * (HEIGHT / source.shape[0]), batch["flip"][number]
        source = _scaled(source)
        tensors = [*batch["global_views"][number], *batch["local_views"][number]]
        views = [_scaled(_pixels(tensor, mean, std)) for tensor in tensors]
        cells = [captioned(with_boxes(source, boxes, flips), f"{name}: boxes, dashed = mirrored")]
        cells += [captioned(view, _title(k, flips)) for k, view in enumerate(views[:2])]
        for other in range(1, min(2 + local_views, len(views))):
            if area(intersection(boxes[0], boxes[other])) > 0:
                cells += _pair(source, views, boxes, flips, other, side)
        pictures.append(grid(cells, 3))
    return pictures


def with_boxes(source: Picture, boxes: torch.Tensor, flips: torch.Tensor) -> Picture:
    """Outline all views on the source image.

    Args:
        source: (H, W, 3) uint8.
        boxes: (V, 4) x1, y1, x2, y2.
        flips: (V,) bool.
    """
    canvas = Image.fromarray(source)
    draw = ImageDraw.Draw(canvas)
    for number, (box, flip) in enumerate(zip(boxes.tolist(), flips.tolist(), strict=True)):
        x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1
        colour = GLOBAL_COLOURS[number] if number < 2 else LOCAL_COLOUR
        for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
            _line(draw, np.array(start), np.array(end), colour, dashed=flip)
        draw.text((x1 + 3, y1 + 2), _name(number), fill=colour, stroke_width=2, stroke_fill="black", font_size=13)
    return np.asarray(canvas)


def with_points(picture: Picture, points: np.ndarray[Any, np.dtype[np.floating[Any]]]) -> Picture:
    """Draw numbered dots, number n in the same colour in every picture.

    Args:
        picture: (H, W, 3) uint8.
        points: (M, 2) x, y in pixels, the edge of the picture at 0.
    """
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for number, (x, y) in enumerate(points.tolist()):
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(number / len(points), 0.75, 1))
        edges = (x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS)
        draw.ellipse(edges, outline=(red, green, blue), width=2)
        draw.point((x - 0.5, y - 0.5), fill=(red, green, blue))
        place = (x + _RADIUS, y - 3 * _RADIUS)
        draw.text(place, str(number + 1), fill=(red, green, blue), stroke_width=2, stroke_fill="black", font_size=13)
    return np.asarray(canvas)


def _pair(
    source: Picture, views: Sequence[Picture], boxes: torch.Tensor, flips: torch.Tensor, other: int, side: int
) -> list[Picture]:
    a, v = [0], [other]
    *grids, points = matched_points(boxes[a], flips[a], boxes[v], flips[v], side)
    cells = [captioned(with_points(source, points.reshape(-1, 2).numpy()), f"global 1 and {_title(other, flips)}")]
    for k, at in zip((0, other), grids, strict=True):
        places = (at.reshape(-1, 2).numpy() + 1) / 2 * HEIGHT
        cells.append(captioned(with_points(views[k], places), _title(k, flips)))
    return cells


def _scaled(picture: Picture) -> Picture:
    size = max(1, round(picture.shape[1] * HEIGHT / picture.shape[0])), HEIGHT
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _pixels(view: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> Picture:
    if view.dtype == torch.uint8:
        return np.ascontiguousarray(view.permute(1, 2, 0).numpy())
    return denormalise(view, mean, std)


def _name(number: int) -> str:
    return f"global {number + 1}" if number < 2 else f"local {number - 1}"


def _title(number: int, flips: torch.Tensor) -> str:
    return f"{_name(number)}{', mirrored' if flips[number] else ''}"


def _line(draw: ImageDraw.ImageDraw, start: Any, end: Any, colour: tuple[int, int, int], dashed: bool) -> None:
    length = float(np.abs(end - start).max())
    for at in np.arange(0, length, 12) if dashed and length else [0.0]:
        to = min(at + 7, length) if dashed else length
        first, last = (start + (end - start) * part / max(length, 1) for part in (at, to))
        draw.line((*first, *last), fill=colour, width=2)
