"""Textures, outlines and backgrounds of the VOC-like world, as NumPy arrays.

All lengths are in *units*, of which an image has 64 along each side whatever its size in pixels:
a bigger image shows the same scene with finer pixels.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frugalseg.miniature.looks import COLOURS, Surface

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

UNITS: Final = 64.0
PERIOD: Final = 5.0  # of every texture
DOT_RADIUS: Final = 1.65
TIP_RADIUS: Final = 6.5


def _stripe(u: Floats, _v: Floats) -> Bools:
    return np.asarray((u % PERIOD) >= PERIOD / 2)


def _check(u: Floats, v: Floats) -> Bools:
    return _stripe(u, v) ^ _stripe(v, u)


def _dots(u: Floats, v: Floats) -> Bools:
    return np.asarray(np.hypot(u % PERIOD - PERIOD / 2, v % PERIOD - PERIOD / 2) < DOT_RADIUS)


def _rings(u: Floats, v: Floats) -> Bools:
    # A random phase moves the centre by less than a period, so the centre stays on the body.
    return _stripe(np.hypot(u - PERIOD / 2, v - PERIOD / 2), v)


def _solid(u: Floats, _v: Floats) -> Bools:
    return np.zeros(u.shape, dtype=np.bool_)


_SECOND: Final[dict[str, Callable[[Floats, Floats], Bools]]] = {
    "solid": _solid,
    "stripe": _stripe,
    "check": _check,
    "dots": _dots,
    "rings": _rings,
}


def paint_surface(surface: Surface, u: Floats, v: Floats, shade: Floats) -> Floats:
    """Colours of a surface at the given points.

    Args:
        surface: Texture and colours.
        u: Coordinate along the object's axis, phase included, shape `(P,)`.
        v: Coordinate across the axis, phase included, shape `(P,)`.
        shade: Row 0: gain of the object per channel; rows 1 and 2: what is added to each colour; shape `(3, 3)`.

    Returns:
        RGB in 0..1, shape `(P, 3)`.
    """
    nominal = np.array([COLOURS[surface.first], COLOURS[surface.second]], dtype=np.float64) / 255
    colours = np.clip(nominal * shade[0] + shade[1:], 0, 1)
    return np.asarray(colours[_SECOND[surface.texture](u, v).astype(np.intp)])


def body_outline(u: Floats, v: Floats) -> Bools:
    """A rounded box, 22 long and 15 wide, most of it behind the origin; `u` and `v` at scale 1."""
    # squares of squares: NumPy's general power is ten times slower
    return np.asarray(np.square(np.square((u + 5) / 11)) + np.square(np.square(v / 7.5)) < 1)


def tip_outline(shape: str, u: Floats, v: Floats) -> Bools:
    """The small part in front, at 11 units from the origin; `u` and `v` at scale 1."""
    u, v = (u - 11) / TIP_RADIUS, v / TIP_RADIUS
    if shape == "disc":
        return np.asarray(u**2 + v**2 < 1)
    if shape == "square":
        return np.asarray(np.maximum(np.abs(u), np.abs(v)) < 0.9)
    if shape == "triangle":
        return np.asarray((np.abs(u) < 1) & (np.abs(v) < 0.6 * (1 - u)))
    bar, reach = 0.4, 1.2  # the cross reaches further, else its area would be the smallest by far
    thin, long = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
    return np.asarray((thin < bar) & (long < reach))


def axis(size: int) -> Floats:
    """Centres of pixels along one side, in units."""
    return np.asarray((np.arange(size) + 0.5) * (UNITS / size))


@cache
def _stretch(cells: int, size: int) -> Floats:
    """Linear interpolation from `cells` points, the outer ones on the border, to `size` pixels, as a matrix."""
    position = axis(size) / UNITS * (cells - 1)
    return np.asarray(np.clip(1 - np.abs(position[:, None] - np.arange(cells)), 0, None))


def smooth_noise(rng: np.random.Generator, cells: int, channels: int, size: int) -> Floats:
    """Value noise in 0..1: a random grid, stretched over the image; shape `(size, size, channels)`."""
    matrix = _stretch(cells, size)
    grid = rng.random((channels, cells, cells))
    return np.asarray((matrix @ grid @ matrix.T).transpose(1, 2, 0))


def _grating(rng: np.random.Generator, size: int) -> Floats:
    angle, period, phase = rng.uniform((0, 4, 0), (np.pi, 14, 2 * np.pi))
    along = axis(size) * np.cos(angle)
    across = axis(size) * np.sin(angle)
    return np.asarray(0.07 * np.sin(2 * np.pi / period * (along[None, :] + across[:, None]) + phase))


def background(rng: np.random.Generator, size: int) -> Floats:
    """A muted, cloudy ground, sometimes with a grating, and up to three small discs as distractors.

    Args:
        rng: Source of all choices.
        size: Side in pixels.

    Returns:
        RGB around 0..1 (not clipped), shape `(size, size, 3)`.
    """
    base = rng.uniform(0.25, 0.75, 3)
    image = np.broadcast_to((base + base.mean()) / 2, (size, size, 3)).copy()
    for amplitude, cells, channels in ((0.30, 4, 1), (0.15, 8, 3), (0.20, 24, 1)):
        image += amplitude * (smooth_noise(rng, cells, channels, size) - 0.5)
    if rng.random() < 0.5:
        image += _grating(rng, size)[..., None]
    palette = np.array(list(COLOURS.values()), dtype=np.float64) / 255
    for _ in range(rng.integers(4)):
        x, y, radius = rng.uniform((0, 0, 1.5), (UNITS, UNITS, 3.5))
        inside = np.hypot(axis(size)[None, :] - x, axis(size)[:, None] - y) < radius
        image[inside] = palette[rng.integers(len(palette))]
    return image


def develop(rng: np.random.Generator, image: Floats) -> NDArray[np.uint8]:
    """Uneven light over the whole picture, pixel noise, and rounding to bytes."""
    size = image.shape[0]
    light = 1 + 0.25 * (smooth_noise(rng, 2, 1, size) - 0.5)
    noisy = image * light + rng.normal(0, 0.035, image.shape)
    return np.asarray(np.rint(np.clip(noisy, 0, 1) * 255), dtype=np.uint8)
