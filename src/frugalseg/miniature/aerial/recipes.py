"""What the 21 land uses of UC Merced are made of.

Which classes occur in which folder, and roughly how often, follows the published pair lists of DLRSD: `beach` is sea
and sand, `harbor` is water with docks and ships, cars are nearly everywhere.
"""

from dataclasses import dataclass, replace
from typing import Final

from frugalseg.miniature.aerial.ground import Form
from frugalseg.miniature.aerial.kinds import Kind
from frugalseg.miniature.aerial.sports import BASKETBALL_COURT, INFIELD, SWIMMING_POOL, TENNIS_COURT
from frugalseg.miniature.aerial.structures import BUILDING, HARBOR, MOBILE_HOME, STORAGE_TANK, TREE
from frugalseg.miniature.aerial.surfaces import Surface
from frugalseg.miniature.aerial.vehicles import LARGE_VEHICLE, PLANE, SHIP, SMALL_VEHICLE


@dataclass(frozen=True)
class Patch:
    """A ground on top of others.

    Attributes:
        surface: What it is.
        form: See `ground.region`.
        share: Smallest and largest part of the picture; below 0 means that it may be absent.
    """

    surface: Surface
    form: Form
    share: tuple[float, float]


@dataclass(frozen=True)
class Things:
    """Objects of one kind.

    Attributes:
        kind: What they are.
        count: Fewest and most of them.
        half: Their half-lengths in units, of which a picture has 96.
    """

    kind: Kind
    count: tuple[int, int]
    half: tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """One land use.

    Attributes:
        ground: What is everywhere else.
        patches: Laid one over the other.
        roads: Half-width of each in units; the second one crosses the first.
        things: Put down in this order, so those that matter come first.
        aligned: Objects are parallel or at right angles to each other.
    """

    ground: Surface
    patches: tuple[Patch, ...] = ()
    roads: tuple[float, ...] = ()
    things: tuple[Things, ...] = ()
    aligned: bool = False


def _patch(surface: Surface, low: float, high: float, form: Form = "blob") -> Patch:
    return Patch(surface, form, (low, high))


_CAR: Final = replace(SMALL_VEHICLE, grounds=(Surface.PAVEMENT,))
_TREE: Final = replace(TREE, grounds=(Surface.GRASS, Surface.SOIL))


def _cars(low: int, high: int, half: tuple[float, float] = (4.5, 6)) -> Things:
    return Things(_CAR, (low, high), half)


def _trucks(high: int) -> Things:
    return Things(replace(LARGE_VEHICLE, grounds=_CAR.grounds), (0, high), (8, 11))


def _trees(low: int, high: int) -> Things:
    return Things(_TREE, (low, high), (3.5, 7))


def _houses(low: int, high: int, half: tuple[float, float] = (8, 11)) -> Things:
    return Things(replace(BUILDING, grounds=_TREE.grounds), (low, high), half)


_SOME_SOIL: Final = _patch(Surface.SOIL, -0.15, 0.3)
RECIPES: Final[dict[str, Recipe]] = {
    "agricultural": Recipe(Surface.FIELD, (_patch(Surface.FIELD, 0.2, 0.6, "side"),)),
    "airplane": Recipe(
        Surface.PAVEMENT,
        (_patch(Surface.GRASS, -0.1, 0.3, "side"),),
        things=(Things(replace(PLANE, grounds=(Surface.PAVEMENT,)), (1, 3), (17, 28)), _houses(0, 1), _cars(0, 3)),
    ),
    "baseballdiamond": Recipe(
        Surface.GRASS,
        (_patch(Surface.PAVEMENT, -0.15, 0.2, "side"),),
        things=(Things(INFIELD, (1, 1), (24, 34)), _houses(0, 1), _trees(1, 6)),
    ),
    "beach": Recipe(Surface.SEA, (_patch(Surface.SAND, 0.3, 0.6, "side"),)),
    "buildings": Recipe(
        Surface.PAVEMENT,
        (_patch(Surface.GRASS, -0.2, 0.15),),
        things=(_houses(3, 6, (13, 22)), _cars(1, 5), _trees(0, 3)),
        aligned=True,
    ),
    "chaparral": Recipe(Surface.CHAPARRAL, (_patch(Surface.SOIL, 0.1, 0.35),)),
    "denseresidential": Recipe(
        Surface.GRASS, (_SOME_SOIL,), (6,), (_houses(8, 12), _cars(1, 4), _trees(4, 9)), aligned=True
    ),
    "forest": Recipe(Surface.TREES, (_patch(Surface.GRASS, -0.1, 0.05),)),
    "freeway": Recipe(Surface.GRASS, (_SOME_SOIL,), (18,), (_cars(3, 6), _trucks(2), _trees(0, 4)), aligned=True),
    "golfcourse": Recipe(
        Surface.GRASS,
        (
            _patch(Surface.SOIL, -0.1, 0.1),
            _patch(Surface.SAND, 0.04, 0.14),
            _patch(Surface.PAVEMENT, -0.05, 0.08, "band"),
        ),
        things=(_trees(3, 9),),
    ),
    "harbor": Recipe(
        Surface.WATER, things=(Things(HARBOR, (1, 3), (22, 34)), Things(SHIP, (3, 8), (9, 15))), aligned=True
    ),
    "intersection": Recipe(
        Surface.GRASS, (_SOME_SOIL,), (11, 9), (_cars(3, 6), _trucks(1), _houses(0, 3), _trees(0, 4)), aligned=True
    ),
    "mediumresidential": Recipe(
        Surface.GRASS, (_SOME_SOIL,), (6,), (_houses(4, 7, (9, 13)), _cars(1, 4), _trees(4, 9)), aligned=True
    ),
    "mobilehomepark": Recipe(
        Surface.GRASS,
        (_SOME_SOIL,),
        (6,),
        (Things(MOBILE_HOME, (6, 10), (9, 12)), _cars(1, 4), _trees(1, 5)),
        aligned=True,
    ),
    "overpass": Recipe(Surface.GRASS, (_SOME_SOIL,), (15, 11), (_cars(3, 7), _trucks(2)), aligned=True),
    "parkinglot": Recipe(
        Surface.PAVEMENT,
        (_patch(Surface.GRASS, -0.2, 0.12, "side"),),
        things=(_cars(10, 20, (5, 7)), _trucks(2), _trees(0, 2)),
        aligned=True,
    ),
    "river": Recipe(
        Surface.GRASS,
        (
            _SOME_SOIL,
            _patch(Surface.TREES, 0.1, 0.5),
            _patch(Surface.SAND, -0.15, 0.12),
            _patch(Surface.WATER, 0.2, 0.4, "band"),
        ),
    ),
    "runway": Recipe(Surface.GRASS, (_patch(Surface.SAND, -0.3, 0.3),), (20,)),
    "sparseresidential": Recipe(
        Surface.GRASS,
        (_SOME_SOIL, _patch(Surface.CHAPARRAL, -0.3, 0.15)),
        (5,),
        (_houses(1, 2, (11, 15)), Things(SWIMMING_POOL, (0, 1), (6, 9)), _cars(0, 2), _trees(4, 10)),
    ),
    "storagetanks": Recipe(
        Surface.PAVEMENT,
        (_SOME_SOIL, _patch(Surface.GRASS, -0.2, 0.3), _patch(Surface.SAND, -0.3, 0.2)),
        things=(Things(STORAGE_TANK, (2, 6), (9, 19)), _houses(0, 1), _cars(0, 2)),
    ),
    "tenniscourt": Recipe(
        Surface.GRASS,
        (_SOME_SOIL, _patch(Surface.PAVEMENT, -0.05, 0.3, "side")),
        things=(
            Things(TENNIS_COURT, (1, 3), (17, 25)),
            Things(BASKETBALL_COURT, (0, 1), (17, 22)),
            _houses(0, 1),
            _cars(0, 3),
            _trees(1, 6),
        ),
        aligned=True,
    ),
}
