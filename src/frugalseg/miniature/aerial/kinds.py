"""The form of an object's description, and what several kinds have in common."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from frugalseg.miniature.aerial.brush import Bools, Floats, Points
from frugalseg.miniature.aerial.surfaces import LAND, Surface


@dataclass(frozen=True)
class Kind:
    """How objects of one kind look and where they are found.

    Attributes:
        surface: What its pixels count as.
        inside: Which points belong to it; this is its mask, exactly.
        paint: RGB in 0..255 of points inside; draws what differs from object to object.
        half: Smallest and largest half-length, in units.
        height: Offset of its shadow, in units; 0 for what lies flat.
        grounds: Where it is put if there is room.
        reach: Radius of a circle around the origin that holds it, in half-lengths.
    """

    surface: Surface
    inside: Callable[[Points], Bools]
    paint: Callable[[Points, np.random.Generator], Floats]
    half: tuple[float, float] = (10, 27)
    height: float = 0
    grounds: tuple[Surface, ...] = LAND
    reach: float = 1.05
