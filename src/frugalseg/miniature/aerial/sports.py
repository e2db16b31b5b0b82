"""Flat things on the ground: diamonds, courts, pitches, tracks and pools."""

from typing import Final

import numpy as np

from frugalseg.miniature.aerial.brush import DIRT, TURF, WHITE, Bools, Floats, Points
from frugalseg.miniature.aerial.kinds import Kind
from frugalseg.miniature.aerial.surfaces import Surface

_HOME: Final = -0.85  # the corner of the diamond, on the axis


def _sector(p: Points, radius: float) -> Bools:
    """A quarter of a disc around the home plate."""
    return np.asarray((np.abs(p.v) < p.u - _HOME) & p.disc(radius, at=(_HOME, 0)))


def _dirt(p: Points) -> Bools:
    """The bare part of a diamond: a small quarter disc without the square of grass in it."""
    square = np.abs(p.u - _HOME - 0.58) + np.abs(p.v) < 0.36
    return np.asarray((_sector(p, 1.12) & ~square) | p.disc(0.17, at=(_HOME + 0.14, 0)))


def _baseball_inside(p: Points) -> Bools:
    return _sector(p, 1.75) | p.disc(0.17, at=(_HOME + 0.14, 0))


def _baseball(p: Points, _rng: np.random.Generator) -> Floats:
    rgb = p.turf(0.3)
    distance = np.hypot(p.u - _HOME, p.v)
    rgb[_dirt(p) | (distance > 1.6)] = DIRT
    rgb[p.line(np.abs(p.v) - (p.u - _HOME) + 0.06, 0.02) & (distance < 1.6)] = WHITE
    rgb[p.disc(0.1, at=(_HOME + 0.58, 0))] = DIRT
    return rgb


def _infield(p: Points, _rng: np.random.Generator) -> Floats:
    return p.solid(DIRT)


def _court_inside(p: Points) -> Bools:
    return p.box(1, 0.5)


def _tennis(p: Points, _rng: np.random.Generator) -> Floats:
    rgb = p.solid(TURF)
    rgb[p.box(0.76, 0.34)] = (58, 98, 170)
    lines = p.frame(0.76, 0.34, 0.02) | p.line(p.u, 0.02)
    lines |= (p.line(np.abs(p.u) - 0.4, 0.02) | (p.line(p.v, 0.02) & (np.abs(p.u) < 0.4))) & (np.abs(p.v) < 0.25)
    lines |= p.line(np.abs(p.v) - 0.25, 0.02) & (np.abs(p.u) < 0.76)
    rgb[lines & p.box(0.8, 0.38)] = WHITE
    return rgb


def _basketball(p: Points, _rng: np.random.Generator) -> Floats:
    rgb = p.solid((222, 132, 52))
    keys = (np.abs(p.u) > 0.55) & (np.abs(p.v) < 0.15)
    rgb[keys] = (160, 58, 40)
    mirrored = Points(np.abs(p.u), p.v, p.pixel)
    lines = p.frame(0.93, 0.44, 0.025) | p.line(p.u, 0.025) | p.ring(0.17, 0.025)
    lines |= mirrored.ring(0.36, 0.02, at=(0.93, 0)) & (mirrored.u < 0.93)
    rgb[lines] = WHITE
    return rgb


def _stadium(p: Points) -> Floats:
    """Distance to the middle line of a track."""
    return np.asarray(np.hypot(np.clip(np.abs(p.u) - 0.5, 0, None), p.v))


def _track_inside(p: Points) -> Bools:
    return np.asarray(_stadium(p) < 0.5)


def _track(p: Points, _rng: np.random.Generator) -> Floats:
    rgb, distance = p.turf(0.4), _stadium(p)
    lanes = distance > 0.31
    rgb[lanes] = (186, 76, 58)
    rgb[p.line(distance - 0.31, 0.015) | (p.line(distance - 0.405, 0.012) & lanes)] = WHITE
    return rgb


def _soccer_inside(p: Points) -> Bools:
    return p.box(1, 0.625)


def _soccer(p: Points, _rng: np.random.Generator) -> Floats:
    rgb = p.turf(0.4)
    mirrored = Points(np.abs(p.u), p.v, p.pixel)
    lines = p.frame(0.92, 0.55, 0.02) | (p.line(p.u, 0.02) & (np.abs(p.v) < 0.55)) | p.ring(0.19, 0.02)
    lines |= mirrored.frame(0.15, 0.32, 0.02, at=(0.77, 0))
    rgb[lines] = WHITE
    return rgb


def _lobes(p: Points, smaller: float) -> Bools:
    return (
        p.disc(0.56 - smaller, at=(-0.42, -0.05)) | p.disc(0.5 - smaller, at=(0.45, 0.14)) | p.box(0.3, 0.36 - smaller)
    )


def _pool_inside(p: Points) -> Bools:
    return _lobes(p, 0)


def _pool(p: Points, rng: np.random.Generator) -> Floats:
    rgb = p.solid((58, 186, 218))
    phase = rng.uniform(0, 2 * np.pi)
    rgb += 14 * np.sin(9 * p.u + 5 * np.sin(6 * p.v) + phase)[..., None]
    rgb[~_lobes(p, max(0.1, p.pixel))] = WHITE
    return rgb


BASEBALL_DIAMOND: Final = Kind(Surface.BASEBALL_DIAMOND, _baseball_inside, _baseball, (11, 25), reach=1.35)
INFIELD: Final = Kind(Surface.SOIL, _dirt, _infield, (20, 34))  # a diamond where grass and dirt are classes
TENNIS_COURT: Final = Kind(Surface.TENNIS_COURT, _court_inside, _tennis, (10, 23), reach=1.15)
BASKETBALL_COURT: Final = Kind(Surface.BASKETBALL_COURT, _court_inside, _basketball, (10, 23), reach=1.15)
TRACK_FIELD: Final = Kind(Surface.TRACK_FIELD, _track_inside, _track, (13, 28))
SOCCER_FIELD: Final = Kind(Surface.SOCCER_FIELD, _soccer_inside, _soccer, (12, 27), reach=1.2)
SWIMMING_POOL: Final = Kind(Surface.SWIMMING_POOL, _pool_inside, _pool, (8, 20))
