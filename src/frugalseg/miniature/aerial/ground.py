"""Grounds: each is a colour with its own grain; regions, roads and patches of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from frugalseg.miniature.aerial.brush import Bools, Colour, Floats
from frugalseg.miniature.aerial.canvas import Canvas
from frugalseg.miniature.aerial.surfaces import WET, Surface

Form = Literal["blob", "side", "band"]
Share = Callable[[Canvas, np.random.Generator], Floats]


@dataclass(frozen=True)
class Texture:
    """A ground between two colours.

    Attributes:
        first: Colour where the share is 0 or less.
        second: Colour where it is 1 or more.
        share: Draws it, shape `(H, W)`.
    """

    first: Colour
    second: Colour
    share: Share


def _grain(coarse: float, fine: float) -> Share:
    """Clouds of two cell sizes."""
    return lambda canvas, rng: 0.55 * canvas.noise(rng, coarse) + 0.45 * canvas.noise(rng, fine)


def _waves(shortest: float, longest: float, sharpness: float) -> Share:
    """Parallel waves, or rows of plants where they are sharp, in a random direction."""

    def share(canvas: Canvas, rng: np.random.Generator) -> Floats:
        angle, period = rng.uniform((0, shortest), (np.pi, longest))
        along = canvas.x * np.cos(angle) + canvas.y * np.sin(angle) + 3 * canvas.noise(rng, 18)
        wave = 0.5 + sharpness * np.sin(2 * np.pi / period * along)
        return np.asarray(0.75 * wave + 0.25 * canvas.noise(rng, 3))

    return share


def _bushes(canvas: Canvas, rng: np.random.Generator) -> Floats:
    """Blotches with clear borders."""
    return np.asarray(4 * (canvas.noise(rng, 4) + 0.35 * canvas.noise(rng, 2) - 0.68))


TEXTURES: Final[dict[Surface, Texture]] = {
    Surface.GRASS: Texture((88, 112, 58), (126, 146, 84), _grain(14, 3)),
    Surface.SOIL: Texture((132, 100, 74), (182, 146, 108), _grain(12, 2.5)),
    Surface.PAVEMENT: Texture((112, 113, 118), (140, 140, 142), _grain(20, 2)),
    Surface.WATER: Texture((44, 72, 84), (70, 98, 104), _waves(9, 16, 0.25)),
    Surface.FIELD: Texture((116, 104, 58), (170, 172, 82), _waves(4, 7, 0.6)),
    Surface.SAND: Texture((212, 192, 146), (238, 222, 180), _grain(16, 4)),
    Surface.SEA: Texture((24, 84, 142), (88, 150, 186), _waves(12, 22, 0.4)),
    Surface.CHAPARRAL: Texture((190, 168, 128), (82, 92, 60), _bushes),
    Surface.TREES: Texture((14, 36, 22), (84, 124, 62), _grain(6, 2.5)),
}


def lay(canvas: Canvas, surface: Surface, rng: np.random.Generator, where: Bools | None = None) -> None:
    """Covers a region with a ground.

    Args:
        canvas: Changed in place.
        surface: A key of `TEXTURES`.
        rng: Source of the texture; the numbers taken do not depend on `where`.
        where: The region, shape `(H, W)`; everything by default.
    """
    texture = TEXTURES[surface]
    tint = rng.uniform(0.9, 1.1) * rng.uniform(0.97, 1.03, 3)
    here = np.ones(canvas.surface.shape, dtype=np.bool_) if where is None else where
    share = np.clip(texture.share(canvas, rng)[here], 0, 1)[:, None]
    canvas.image[here] = (np.array(texture.first) * (1 - share) + np.array(texture.second) * share) * tint
    canvas.surface[here] = surface


def region(canvas: Canvas, rng: np.random.Generator, form: Form, share: float) -> Bools:
    """A region with crooked borders.

    Args:
        canvas: Gives the size.
        rng: Source of place and borders.
        form: `blob` may fall to pieces, `side` touches the border of the picture, `band` runs through it.
        share: The part of the picture that it covers.

    Returns:
        Where it is, shape `(H, W)`.
    """
    across, down = canvas.extent
    x, y, angle = rng.uniform((0.3 * across, 0.3 * down, 0), (0.7 * across, 0.7 * down, 2 * np.pi))
    crooked = canvas.noise(rng, 36) + 0.25 * canvas.noise(rng, 9)
    slope = (canvas.x - x) * np.cos(angle) + (canvas.y - y) * np.sin(angle)
    height = {"blob": crooked, "side": slope + 20 * crooked, "band": -np.abs(slope + 30 * (crooked - 0.6))}[form]
    return np.asarray(height > np.quantile(height, 1 - share))


def road(
    canvas: Canvas,
    rng: np.random.Generator,
    centre: tuple[float, float],
    angle: float,
    half_width: float,
    lanes: int = 2,
) -> None:
    """Paves a straight strip, with dashes between its lanes and lines along its sides; it ends at water.

    Args:
        canvas: Changed in place.
        rng: Source of the asphalt's texture.
        centre: A point on its middle line, in units.
        angle: Its direction.
        half_width: In units.
        lanes: Strips between the dashes.
    """
    points = canvas.frame((slice(0, canvas.height), slice(0, canvas.width)), *centre, half_width, angle)
    where = (np.abs(points.v) < 1) & ~np.isin(canvas.surface, WET)
    lay(canvas, Surface.PAVEMENT, rng, where)
    dashes = np.asarray((points.u * half_width) % 8 < 4)
    marks = np.zeros_like(where)
    for lane in range(1, lanes):
        marks |= points.line(points.v - (2 * lane / lanes - 1), 0.06) & dashes
    canvas.image[where & marks] = (226, 222, 200)
    canvas.image[where & points.line(np.abs(points.v) - 0.9, 0.05)] += 36
