"""Putting objects where there is room, with their shadows."""

from typing import Final

import numpy as np

from frugalseg.miniature.aerial.brush import Bools
from frugalseg.miniature.aerial.canvas import Canvas
from frugalseg.miniature.aerial.kinds import Kind

Box = tuple[float, float, float, float]
_TRIES: Final = 24
_CHOOSY: Final = 16  # of the tries only accept a suitable ground
_SHADE: Final = 0.58


def place(
    canvas: Canvas,
    kind: Kind,
    rng: np.random.Generator,
    box: Box | None = None,
    half: tuple[float, float] | None = None,
    angle: float | None = None,
) -> int:
    """Paints one object at a random free place, if one is found.

    Objects never touch: at least one pixel stays between them.

    Args:
        canvas: Changed in place.
        kind: What to paint.
        rng: Source of all choices.
        box: Left, top, right and bottom of the centre's range, in units; by default all but a margin of 12 %.
        half: Smallest and largest half-length in units, drawn log-uniformly; by default the kind's own.
        angle: Direction of the axis; random by default.

    Returns:
        Number of pixels painted, 0 if there was no room.
    """
    across, down = canvas.extent
    left, top, right, bottom = box or (0.12 * across, 0.12 * down, 0.88 * across, 0.88 * down)
    length = float(np.exp(rng.uniform(*np.log(half or kind.half))))
    for attempt in range(_TRIES):
        x, y, turn = rng.uniform((left, top, 0), (right, bottom, 2 * np.pi))
        suitable = attempt >= _CHOOSY or canvas.at(x, y) in kind.grounds
        painted = suitable and stamp(canvas, kind, rng, (x, y), length, turn if angle is None else angle)
        if painted:
            return painted
    return 0


def stamp(
    canvas: Canvas,
    kind: Kind,
    rng: np.random.Generator,
    centre: tuple[float, float],
    half: float,
    angle: float,
    solid: bool = True,
) -> int:
    """Paints one object unless it would touch another one.

    Args:
        canvas: Changed in place.
        kind: What to paint.
        rng: Source of the object's colours.
        centre: x and y in units.
        half: Half-length in units.
        angle: Direction of the axis.
        solid: Reserve the place; what is not solid lies underneath later objects.

    Returns:
        Number of pixels painted; nothing has changed if it is 0.
    """
    window = canvas.window(*centre, kind.reach * half + kind.height)
    points = canvas.frame(window, *centre, half, angle)
    mask = kind.inside(points)
    if not mask.any() or (mask & canvas.taken[window]).any():
        return 0
    _cast_shadow(canvas, window, mask, round(kind.height * canvas.scale))
    inside = type(points)(points.u[mask], points.v[mask], points.pixel)
    canvas.image[window][mask] = np.clip(kind.paint(inside, rng) * rng.uniform(0.85, 1.15), 0, 255)
    canvas.surface[window][mask] = kind.surface
    if solid:
        canvas.taken[window] |= _grow(mask)
    return int(mask.sum())


def _cast_shadow(canvas: Canvas, window: tuple[slice, slice], mask: Bools, offset: int) -> None:
    """Darkens what lies down-right of an object, except other objects."""
    if offset == 0:
        return
    shadow = np.zeros_like(mask)
    shadow[offset:, offset:] = mask[:-offset, :-offset]
    canvas.image[window][shadow & ~mask & ~canvas.taken[window]] *= _SHADE


def _grow(mask: Bools) -> Bools:
    """The mask and its eight-neighbours."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    rows = grown.copy()
    grown[:, 1:] |= rows[:, :-1]
    grown[:, :-1] |= rows[:, 1:]
    return grown
