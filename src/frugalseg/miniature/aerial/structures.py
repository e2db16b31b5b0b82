"""Built things: tank, bridge, roundabout, harbor, roofs; and trees."""

from typing import Final

import numpy as np

from frugalseg.miniature.aerial.brush import DARK, GREY, TURF, WHITE, WOOD, Bools, Colour, Floats, Points, pick
from frugalseg.miniature.aerial.kinds import Kind
from frugalseg.miniature.aerial.surfaces import LAND, WET, Surface

_ROOFS: Final[tuple[Colour, ...]] = ((168, 78, 60), (146, 96, 74), (120, 112, 108), (176, 160, 142))
_TRAILERS: Final[tuple[Colour, ...]] = ((226, 222, 208), (206, 212, 216), (216, 200, 172))
_CROWNS: Final[tuple[Colour, ...]] = ((44, 82, 40), (58, 94, 44), (38, 70, 46))


def _tank_inside(p: Points) -> Bools:
    return p.disc(1)


def _tank(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.metal()
    rgb *= (1 - 0.1 * (p.u + p.v))[..., None]  # a slightly conical roof
    rgb[p.ring(0.62, 0.03)] *= 0.7
    rgb[p.ring(0.97, 0.06)] = (112, 116, 122)
    rgb[p.disc(0.13)] = DARK
    rgb[p.box(0.4, 0.04, at=(0.6, 0))] = pick(rng, ((186, 64, 48), (92, 96, 100)))
    return rgb


def _bridge_inside(p: Points) -> Bools:
    return p.box(1, 1 / 6)


def _bridge(p: Points, _rng: np.random.Generator) -> Floats:
    rgb = p.solid(GREY)
    rgb[p.line(p.u % 0.4 - 0.2, 0.015)] = (104, 104, 108)
    rgb[p.line(p.v, 0.012) & (p.u % 0.2 < 0.12)] = (232, 200, 70)
    rgb[np.abs(p.v) > 1 / 6 - max(0.035, 1.1 * p.pixel)] = WHITE
    return rgb


def _roundabout_inside(p: Points) -> Bools:
    return p.disc(1)


def _roundabout(p: Points, _rng: np.random.Generator) -> Floats:
    rgb = p.solid(GREY)
    angle = np.arctan2(p.v, p.u)
    rgb[p.ring(0.76, 0.02) & (angle % (np.pi / 6) < np.pi / 12)] = WHITE
    rgb[p.ring(0.98, 0.03)] = WHITE
    rgb[p.disc(0.5)] = TURF
    rgb[p.ring(0.5, 0.04)] = WHITE
    rgb[p.disc(0.16)] = (46, 84, 42)
    return rgb


def _harbor_inside(p: Points) -> Bools:
    pier = p.box(1, max(0.1, 0.6 * p.pixel))
    fingers = p.line((p.u + 0.9) % 0.45 - 0.225, 0.07) & (np.abs(p.v) < 0.55) & (np.abs(p.u) < 0.9)
    return pier | fingers


def _harbor(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.solid(pick(rng, (WOOD, (172, 150, 124))))
    along = np.where(np.abs(p.v) < 0.1, p.u, p.v)
    rgb[along % 0.16 < 0.06] *= 0.8  # planks
    return rgb


def _building_inside(p: Points) -> Bools:
    return p.box(1, 0.62) & ~p.box(0.3, 0.3, at=(0.75, 0.5))


def _building(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.solid(pick(rng, _ROOFS))
    rgb[p.v < 0] *= 1.14
    rgb[p.v > 0] *= 0.86
    rgb[p.line(p.v, 0.03)] *= 0.75
    rgb[p.box(0.09, 0.09, at=(-0.5, -0.3))] = (96, 92, 90)
    return rgb


def _mobile_home_inside(p: Points) -> Bools:
    return p.box(1, 0.3)


def _mobile_home(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.solid(pick(rng, _TRAILERS))
    rgb[p.line(p.v, 0.03)] *= 0.72
    rgb[p.u % 0.25 < 0.05] *= 0.93
    rgb[np.abs(p.u) > 0.92] *= 0.85
    return rgb


def _tree_inside(p: Points) -> Bools:
    angle = np.arctan2(p.v, p.u)
    return np.asarray(np.hypot(p.u, p.v) < 0.86 + 0.1 * np.sin(5 * angle) + 0.05 * np.sin(9 * angle + 1))


def _tree(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.solid(pick(rng, _CROWNS))
    rgb *= (1.05 - 0.3 * np.hypot(p.u, p.v) + 0.25 * rng.random(p.u.shape))[..., None]
    return rgb


STORAGE_TANK: Final = Kind(Surface.STORAGE_TANK, _tank_inside, _tank, (6, 20), 2.5)
BRIDGE: Final = Kind(Surface.BRIDGE, _bridge_inside, _bridge, (14, 30), 2.5, grounds=WET)
ROUNDABOUT: Final = Kind(Surface.ROUNDABOUT, _roundabout_inside, _roundabout, (9, 24))
HARBOR: Final = Kind(Surface.HARBOR, _harbor_inside, _harbor, (12, 27), 1, grounds=WET)
BUILDING: Final = Kind(Surface.BUILDING, _building_inside, _building, (6, 12), 2.5, LAND, 1.2)
MOBILE_HOME: Final = Kind(Surface.MOBILE_HOME, _mobile_home_inside, _mobile_home, (8, 11), 2)
TREE: Final = Kind(Surface.TREES, _tree_inside, _tree, (2.5, 6), 1.5)
