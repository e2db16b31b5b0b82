"""What stands and moves in a street: seen from behind, and smaller the farther away."""

from dataclasses import dataclass
from typing import Final

from frugalseg.miniature.canvas import HEIGHT, Canvas

_CARS: Final = ((0.7, 0.1, 0.1), (0.12, 0.2, 0.6), (0.9, 0.9, 0.9), (0.15, 0.15, 0.17), (0.6, 0.62, 0.65))
_COATS: Final = ((0.75, 0.25, 0.15), (0.2, 0.3, 0.65), (0.85, 0.75, 0.3), (0.25, 0.5, 0.35), (0.6, 0.25, 0.6))


@dataclass(frozen=True)
class Spot:
    """A place on the ground.

    Attributes:
        x: Where it is, in units.
        y: The same downward.
        scale: Size of things there: 0 at the horizon, 1 at the lower border.
    """

    x: float
    y: float
    scale: float


def add_car(canvas: Canvas, at: Spot) -> None:
    """A car seen from behind: body, window, wheels; all of it is car."""
    s = at.scale
    paint = canvas.jitter(_CARS[int(canvas.rng.integers(len(_CARS)))])
    wheels = canvas.box(at.x - 9 * s, at.y - 4 * s, at.x - 6 * s, at.y) | canvas.box(
        at.x + 6 * s, at.y - 4 * s, at.x + 9 * s, at.y
    )
    canvas.paint(wheels, "car", (0.05, 0.05, 0.06))
    canvas.paint(canvas.box(at.x - 10 * s, at.y - 10 * s, at.x + 10 * s, at.y - 2 * s), "car", paint)
    canvas.paint(canvas.box(at.x - 8 * s, at.y - 16 * s, at.x + 8 * s, at.y - 10 * s), "car", paint)
    canvas.paint(canvas.box(at.x - 6.5 * s, at.y - 14.5 * s, at.x + 6.5 * s, at.y - 10 * s), "car", (0.12, 0.15, 0.2))
    for side in (-8, 8):
        canvas.paint(canvas.ellipse(at.x + side * s, at.y - 7.5 * s, 1.5 * s, 1.2 * s), "car", (0.85, 0.1, 0.1))


def add_bus(canvas: Canvas, at: Spot) -> None:
    """A bus seen from behind: tall, yellow, with a broad window."""
    s = at.scale
    canvas.paint(canvas.box(at.x - 13 * s, at.y - 32 * s, at.x + 13 * s, at.y), "bus", canvas.jitter((0.9, 0.75, 0.15)))
    canvas.paint(canvas.box(at.x - 11 * s, at.y - 29 * s, at.x + 11 * s, at.y - 17 * s), "bus", (0.15, 0.18, 0.22))
    canvas.paint(canvas.box(at.x - 13 * s, at.y - 4 * s, at.x + 13 * s, at.y - 2 * s), "bus", (0.05, 0.05, 0.06))


def add_person(canvas: Canvas, at: Spot) -> None:
    """Legs, a coat and a head."""
    s = at.scale
    coat = canvas.jitter(_COATS[int(canvas.rng.integers(len(_COATS)))])
    canvas.paint(canvas.box(at.x - 2.2 * s, at.y - 10 * s, at.x + 2.2 * s, at.y), "person", (0.12, 0.12, 0.2))
    canvas.paint(canvas.box(at.x - 3.4 * s, at.y - 20 * s, at.x + 3.4 * s, at.y - 9 * s), "person", coat)
    canvas.paint(canvas.ellipse(at.x, at.y - 22.5 * s, 2.4 * s, 3 * s), "person", canvas.jitter((0.8, 0.6, 0.5), 0.03))


def add_pole(canvas: Canvas, at: Spot) -> None:
    """A pole, at least a pixel wide; every other one bears a sign."""
    half = max(1.1 * at.scale, 0.55 * HEIGHT / canvas.ids.shape[0])
    canvas.paint(canvas.box(at.x - half, at.y - 42 * at.scale, at.x + half, at.y), "pole", (0.42, 0.44, 0.46))
    if canvas.rng.random() < 0.5:
        x, y, radius = at.x, at.y - 38 * at.scale, 5 * at.scale
        canvas.paint(canvas.ellipse(x, y, radius, radius), "traffic sign", (0.85, 0.1, 0.12))
        canvas.paint(canvas.ellipse(x, y, 0.6 * radius, 0.6 * radius), "traffic sign", (0.95, 0.95, 0.95))


def add_tree(canvas: Canvas, at: Spot) -> None:
    """A trunk and a crown of three discs; both are vegetation."""
    s = at.scale
    canvas.paint(canvas.box(at.x - 1.5 * s, at.y - 20 * s, at.x + 1.5 * s, at.y), "vegetation", (0.3, 0.2, 0.12))
    leaves = canvas.mottled(canvas.jitter((0.16, 0.38, 0.12), 0.04), 1.5, 0.45)
    for _ in range(3):
        x, y, radius = canvas.rng.uniform((-6, -36, 8), (6, -24, 12)) * s
        canvas.paint(canvas.ellipse(at.x + x, at.y + y, radius, radius), "vegetation", leaves)


def add_bin(canvas: Canvas, at: Spot) -> None:
    """Something that stands about: `static`, which no benchmark counts."""
    s = at.scale
    canvas.paint(canvas.box(at.x - 3 * s, at.y - 9 * s, at.x + 3 * s, at.y), "static", canvas.jitter((0.3, 0.35, 0.3)))
