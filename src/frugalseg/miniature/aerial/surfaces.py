"""What a pixel of an aerial picture can show."""

from enum import IntEnum
from typing import Final


class Surface(IntEnum):
    """Grounds, then things that iSAID does not name, then the classes of iSAID in its order."""

    GRASS = 0
    SOIL = 1
    PAVEMENT = 2
    WATER = 3
    FIELD = 4
    SAND = 5
    SEA = 6
    CHAPARRAL = 7
    TREES = 8
    BUILDING = 9
    MOBILE_HOME = 10
    SHIP = 11
    STORAGE_TANK = 12
    BASEBALL_DIAMOND = 13
    TENNIS_COURT = 14
    BASKETBALL_COURT = 15
    TRACK_FIELD = 16
    BRIDGE = 17
    LARGE_VEHICLE = 18
    SMALL_VEHICLE = 19
    HELICOPTER = 20
    SWIMMING_POOL = 21
    ROUNDABOUT = 22
    SOCCER_FIELD = 23
    PLANE = 24
    HARBOR = 25


WET: Final = (Surface.WATER, Surface.SEA)
LAND: Final = (Surface.GRASS, Surface.SOIL, Surface.PAVEMENT, Surface.FIELD)
