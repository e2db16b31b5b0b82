"""Shapes and colours on the points of one object."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Colour = tuple[int, int, int]

WHITE: Final = (238, 238, 232)
METAL: Final = (222, 226, 230)  # ship, tank and plane share it
DARK: Final = (38, 42, 50)
GREY: Final = (138, 139, 142)  # bridge and roundabout share it
TURF: Final = (74, 138, 66)  # track, diamond, pitch, court and roundabout share it
DIRT: Final = (181, 132, 88)
WOOD: Final = (158, 120, 82)


@dataclass(frozen=True)
class Points:
    """Pixels in the frame of an object whose half-length is 1.

    Attributes:
        u: Coordinate along the axis, shape `(...)`.
        v: Coordinate across it, shape `(...)`.
        pixel: Side of a pixel in this frame; no line is drawn thinner.
    """

    u: Floats
    v: Floats
    pixel: float

    def box(self, half_u: float, half_v: float, at: tuple[float, float] = (0, 0)) -> Bools:
        """Inside a rectangle."""
        return np.asarray((np.abs(self.u - at[0]) < half_u) & (np.abs(self.v - at[1]) < half_v))

    def disc(self, radius: float, at: tuple[float, float] = (0, 0)) -> Bools:
        """Inside a circle."""
        return np.asarray(np.square(self.u - at[0]) + np.square(self.v - at[1]) < radius * radius)

    def line(self, distance: Floats, half_width: float) -> Bools:
        """Near the points where `distance` is zero, over at least one pixel."""
        return np.asarray(np.abs(distance) < max(half_width, 0.55 * self.pixel))

    def frame(self, half_u: float, half_v: float, half_width: float, at: tuple[float, float] = (0, 0)) -> Bools:
        """On the border of a rectangle."""
        distance = np.maximum(np.abs(self.u - at[0]) - half_u, np.abs(self.v - at[1]) - half_v)
        return self.line(distance, half_width)

    def ring(self, radius: float, half_width: float, at: tuple[float, float] = (0, 0)) -> Bools:
        """On a circle."""
        return self.line(np.hypot(self.u - at[0], self.v - at[1]) - radius, half_width)

    def solid(self, colour: Colour) -> Floats:
        """All points in one colour, RGB in 0..255, shape `(..., 3)`."""
        return np.broadcast_to(np.array(colour, dtype=np.float64), (*self.u.shape, 3)).copy()

    def turf(self, period: float) -> Floats:
        """Mown in stripes across the axis."""
        light = 1 + 0.09 * np.where(self.u % period < period / 2, 1.0, -1.0)
        return np.asarray(self.solid(TURF) * light[..., None])

    def metal(self) -> Floats:
        """White metal that is brighter along the axis."""
        return np.asarray(self.solid(METAL) * (1.06 - 0.3 * np.minimum(np.abs(self.v), 0.6))[..., None])


def pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """One of the colours."""
    return colours[int(rng.integers(len(colours)))]
