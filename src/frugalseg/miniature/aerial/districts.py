"""Large scenes: two by two districts, each with its own grounds, roads and a few classes of objects."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from frugalseg.miniature.aerial.brush import Bools, Colour, Points, pick
from frugalseg.miniature.aerial.canvas import Canvas
from frugalseg.miniature.aerial.catalogue import ISAID_KINDS
from frugalseg.miniature.aerial.ground import lay, region, road
from frugalseg.miniature.aerial.placing import Box, place, stamp
from frugalseg.miniature.aerial.structures import BUILDING, TREE
from frugalseg.miniature.aerial.surfaces import LAND, WET, Surface

_CLASSES: Final = (0.4, 0.4, 0.2)  # chances of one, two and three classes in a district
# Parts of a district covered by objects of its first kind, second and third: there are more of the smaller ones.
_COVER: Final = ((0.07, 0.1), (0.02, 0.06), (0.02, 0.06))
_TILE: Final = 96.0 * 96.0
_PATCHES: Final[tuple[Colour, ...]] = ((170, 160, 150), (96, 98, 104), (150, 120, 96), (120, 128, 96))


def paint_districts(canvas: Canvas, first_kinds: Sequence[int], rng: np.random.Generator) -> None:
    """Paints a scene.

    Args:
        canvas: An empty one.
        first_kinds: Numbers of `ISAID_KINDS`, one per district, of which there are one or four: these kinds surely
            occur. Up to two more per district are drawn.
        rng: Source of all choices.
    """
    boxes = _boxes(canvas, len(first_kinds))
    kinds = [_draw_kinds(first, rng) for first in first_kinds]
    _lay_grounds(canvas, [_grounds(chosen) for chosen in kinds], rng)
    for _ in range(rng.integers(len(boxes) + 1)):
        left, top, right, bottom = boxes[int(rng.integers(len(boxes)))]
        x, y, angle, half_width = rng.uniform((left, top, 0, 5), (right, bottom, np.pi, 9))
        road(canvas, rng, (x, y), angle, half_width)
    _scatter_clutter(canvas, rng)
    for box, chosen in zip(boxes, kinds, strict=True):
        _scatter_objects(canvas, box, chosen, rng)


def _boxes(canvas: Canvas, count: int) -> list[Box]:
    across, down = canvas.extent
    if count == 1:
        return [(0, 0, across, down)]
    return [
        (column * across / 2, row * down / 2, (column + 1) * across / 2, (row + 1) * down / 2)
        for row in range(2)
        for column in range(2)
    ]


def _draw_kinds(first: int, rng: np.random.Generator) -> list[int]:
    """The given kind, and up to two different ones."""
    count = 1 + int(rng.choice(len(_CLASSES), p=_CLASSES))
    others = [int(kind) for kind in rng.permutation(len(ISAID_KINDS)) if kind != first]
    return [first, *others[: count - 1]]


def _grounds(kinds: Sequence[int]) -> tuple[Surface, ...]:
    """Where the first kind is at home; or where one is that needs water, for the others find some land anyway."""
    afloat = [ISAID_KINDS[kind].grounds for kind in kinds if ISAID_KINDS[kind].grounds == WET]
    return afloat[0] if afloat else ISAID_KINDS[kinds[0]].grounds


def _lay_grounds(canvas: Canvas, suitable: Sequence[tuple[Surface, ...]], rng: np.random.Generator) -> None:
    """Two grounds in each district, the larger one suitable; borders between districts are crooked."""
    district = np.zeros(canvas.surface.shape, dtype=np.intp)
    if len(suitable) > 1:
        across, down = canvas.extent
        east = canvas.x + 100 * (canvas.noise(rng, 70) - 0.5) > across / 2
        south = canvas.y + 100 * (canvas.noise(rng, 70) - 0.5) > down / 2
        district = east + 2 * south.astype(np.intp)
    for number, grounds in enumerate(suitable):
        main = grounds[int(rng.integers(len(grounds)))]
        rest = [ground for ground in LAND if ground != main]
        lay(canvas, main, rng, district == number)
        second = rest[int(rng.integers(len(rest)))]
        lay(canvas, second, rng, (district == number) & region(canvas, rng, "blob", rng.uniform(0.2, 0.5)))


def _scatter_clutter(canvas: Canvas, rng: np.random.Generator) -> None:
    """Trees, roofs and coloured patches on land, three to nine on the area of a tile; objects cover them."""
    across, down = canvas.extent
    for _ in range(max(1, int(across * down / _TILE * rng.uniform(3, 9)))):
        x, y, angle, size, choice = rng.uniform((0, 0, 0, 0, 0), (across, down, 2 * np.pi, 1, 1))
        if canvas.at(x, y) in WET:
            continue
        if choice < 0.6:
            stamp(canvas, TREE, rng, (x, y), 2.5 + 3.5 * size, angle, solid=False)
        elif choice < 0.75:
            stamp(canvas, BUILDING, rng, (x, y), 5 + 6 * size, angle, solid=False)
        else:
            _paint_patch(canvas, rng, (x, y), 2 + 6 * size, angle)


def _paint_patch(
    canvas: Canvas, rng: np.random.Generator, centre: tuple[float, float], half: float, angle: float
) -> None:
    """A quadrangle in a muted colour: heaps, slabs, whatever lies about."""
    window = canvas.window(*centre, 1.6 * half)
    points = canvas.frame(window, *centre, half, angle)
    canvas.image[window][_quadrangle(points, rng)] = pick(rng, _PATCHES)


def _quadrangle(points: Points, rng: np.random.Generator) -> Bools:
    lean, narrow, flat = rng.uniform((-0.4, 0, 0.3), (0.4, 0.5, 0.9))
    half_width = 0.8 - narrow * points.u * 0.8
    return np.asarray((np.abs(points.u + lean * points.v) < 1) & (np.abs(points.v) < flat * half_width))


def _scatter_objects(canvas: Canvas, box: Box, kinds: Sequence[int], rng: np.random.Generator) -> None:
    """At least two objects of every kind, and more until they cover their share, unless there is no more room."""
    left, top, right, bottom = box
    pixels = (right - left) * (bottom - top) * canvas.scale**2
    for kind, part in zip(kinds, _COVER, strict=False):
        cover = pixels * rng.uniform(*part)
        painted = [place(canvas, ISAID_KINDS[kind], rng, box) for _ in range(2)]
        while painted[-1] and sum(painted) < cover:
            painted.append(place(canvas, ISAID_KINDS[kind], rng, box))
