"""The kinds of objects that are classes of iSAID, in its order."""

from typing import Final

from frugalseg.miniature.aerial import sports, structures, vehicles
from frugalseg.miniature.aerial.kinds import Kind

# Folds of iSAID-5i are the fives of this list. Looks are shared across them on purpose: white metal by ship, tank and
# plane; turf by diamond, court, track, roundabout and pitch; white lines by courts and pitch; grey by bridge and
# roundabout. So base classes teach features that novel classes are made of.
ISAID_KINDS: Final[tuple[Kind, ...]] = (
    vehicles.SHIP,
    structures.STORAGE_TANK,
    sports.BASEBALL_DIAMOND,
    sports.TENNIS_COURT,
    sports.BASKETBALL_COURT,
    sports.TRACK_FIELD,
    structures.BRIDGE,
    vehicles.LARGE_VEHICLE,
    vehicles.SMALL_VEHICLE,
    vehicles.HELICOPTER,
    sports.SWIMMING_POOL,
    structures.ROUNDABOUT,
    sports.SOCCER_FIELD,
    vehicles.PLANE,
    structures.HARBOR,
)
