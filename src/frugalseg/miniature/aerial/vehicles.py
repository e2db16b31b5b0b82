"""Things that move: ship, large and small vehicle, helicopter, plane."""

from typing import Final

import numpy as np

from frugalseg.miniature.aerial.brush import DARK, WHITE, WOOD, Bools, Colour, Floats, Points, pick
from frugalseg.miniature.aerial.kinds import Kind
from frugalseg.miniature.aerial.surfaces import WET, Surface

_HULLS: Final[tuple[Colour, ...]] = ((52, 62, 84), (128, 44, 40), (70, 72, 76), (36, 74, 110))
_CARS: Final[tuple[Colour, ...]] = ((204, 42, 40), (44, 78, 168), (226, 226, 222), (58, 60, 66), (214, 172, 52))
_LOADS: Final[tuple[Colour, ...]] = ((228, 228, 222), (190, 56, 46), (54, 96, 170), (232, 180, 50))
_HELICOPTERS: Final[tuple[Colour, ...]] = ((196, 52, 44), (92, 104, 62), (236, 196, 60), (58, 88, 140))


def _hull(p: Points, half_width: float) -> Bools:
    bow = np.clip((p.u - 0.25) / 0.75, 0, 1)
    return np.asarray((np.abs(p.u) < 1) & (np.abs(p.v) < half_width * (1 - bow * bow)))


def _ship_inside(p: Points) -> Bools:
    return _hull(p, 0.3)


def _ship(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.metal()
    rgb[~_hull(p, max(0.3 - p.pixel, 0.2)) | (p.u < -0.93)] = pick(rng, _HULLS)
    rgb[p.box(0.3, 0.13, at=(0.28, 0))] = WOOD
    rgb[p.box(0.2, 0.17, at=(-0.45, 0))] = WHITE
    rgb[p.box(0.05, 0.17, at=(-0.2, 0))] = DARK
    return rgb


def _large_vehicle_inside(p: Points) -> Bools:
    return p.box(1, 0.27) & ~(p.line(p.u - 0.56, 0.03) & (np.abs(p.v) > 0.12))


def _large_vehicle(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.solid(pick(rng, _LOADS))
    rgb[p.line(p.u % 0.38 - 0.19, 0.015) & (np.abs(p.v) < 0.22)] *= 0.82
    cab = p.u > 0.56
    rgb[cab] = pick(rng, _CARS)
    rgb[p.line(p.u - 0.56, 0.05)] = DARK
    rgb[p.line(p.u - 0.84, 0.06) & (np.abs(p.v) < 0.22)] = DARK
    return rgb


def _small_vehicle_inside(p: Points) -> Bools:
    return np.asarray(np.square(np.square(p.u)) + np.square(np.square(p.v / 0.47)) < 1)


def _small_vehicle(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.solid(pick(rng, _CARS))
    rgb[p.box(0.5, 0.36, at=(-0.12, 0))] = DARK  # glass all around ...
    rgb[p.box(0.3, 0.28, at=(-0.15, 0))] = np.clip(rgb[0] * 1.08 if len(rgb) else 0, 0, 255)  # ... the roof
    return rgb


def _blades(p: Points) -> Bools:
    along, across = (p.u - 0.25 + p.v) / np.sqrt(2), (p.u - 0.25 - p.v) / np.sqrt(2)
    longest = np.maximum(np.abs(along), np.abs(across)) < 0.72
    return np.asarray(longest & (p.line(along, 0.055) | p.line(across, 0.055)))


def _fuselage(p: Points) -> Bools:
    return np.asarray(np.square((p.u - 0.3) / 0.46) + np.square(p.v / 0.23) < 1)


def _helicopter_inside(p: Points) -> Bools:
    tail = p.line(p.v, 0.06) & (p.u > -1) & (p.u < 0)
    rotor = p.line(p.u + 0.93, 0.05) & (np.abs(p.v) < 0.24)
    return _fuselage(p) | tail | rotor | _blades(p)


def _helicopter(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.solid(pick(rng, _HELICOPTERS))
    rgb[(p.u > 0.52) & _fuselage(p)] = (110, 160, 190)
    rgb[_blades(p) | (p.line(p.u + 0.93, 0.05) & (np.abs(p.v) > 0.08))] = DARK
    rgb[p.disc(0.1, at=(0.25, 0))] = WHITE
    return rgb


def _plane_inside(p: Points) -> Bools:
    side = np.abs(p.v)
    nose = np.sqrt(np.clip((1 - p.u) / 0.2, 0, 1))
    body = (np.abs(p.u) < 1) & (side < max(0.1, 0.55 * p.pixel) * nose)
    wings = (side < 0.95) & (p.u < 0.36 - 0.55 * side) & (p.u > 0.04 - 0.36 * side)
    tail = (side < 0.38) & (p.u < -0.68 - 0.4 * side) & (p.u > -0.92 - 0.3 * side)
    return np.asarray(body | wings | tail)


def _plane(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.metal()
    side = np.abs(p.v)
    rgb[(side > 0.12) & (p.u < 0.1 - 0.36 * side) & (p.u > -0.6)] *= 0.84  # flaps
    rgb[p.disc(0.07, at=(0.18, 0.36)) | p.disc(0.07, at=(0.18, -0.36))] = DARK
    rgb[p.line(p.u - 0.84, 0.035) & (side < 0.08)] = DARK
    rgb[p.line(p.v, 0.025) & (p.u < -0.55)] = pick(rng, _CARS)
    return rgb


SHIP: Final = Kind(Surface.SHIP, _ship_inside, _ship, height=1.5, grounds=WET)
LARGE_VEHICLE: Final = Kind(Surface.LARGE_VEHICLE, _large_vehicle_inside, _large_vehicle, (10, 20), 2)
SMALL_VEHICLE: Final = Kind(Surface.SMALL_VEHICLE, _small_vehicle_inside, _small_vehicle, (6, 11), 1.5)
HELICOPTER: Final = Kind(Surface.HELICOPTER, _helicopter_inside, _helicopter, (11, 24), 2)
PLANE: Final = Kind(Surface.PLANE, _plane_inside, _plane, (11, 27), 2, reach=1.1)
