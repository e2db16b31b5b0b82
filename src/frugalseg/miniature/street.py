"""Street scenes, drawn like a stage set: sky, house fronts, ground, then things from far to near.

Whatever is painted later hides what lies behind it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frugalseg.miniature.canvas import HEIGHT, WIDTH, Canvas
from frugalseg.miniature.textures import develop
from frugalseg.miniature.things import Spot, add_bin, add_bus, add_car, add_person, add_pole, add_tree

Bytes = NDArray[np.uint8]

_WALLS: Final = ((0.62, 0.5, 0.4), (0.7, 0.66, 0.58), (0.55, 0.36, 0.3), (0.5, 0.5, 0.52))
_SIDEWALK: Final = 1.55  # its outer border: distance from the middle of the road, half a road being 1


@dataclass(frozen=True)
class Street:
    """How a street lies in the picture.

    Attributes:
        x: Where all lines meet, in units.
        horizon: The same downward.
        half_road: Half the width of the road at the lower border.
    """

    x: float
    horizon: float
    half_road: float

    def spot(self, scale: float, across: float) -> Spot:
        """The place at a given scale and distance from the middle of the road, half a road being 1."""
        return Spot(self.x + across * self.half_road * scale, self.horizon + (HEIGHT - self.horizon) * scale, scale)


def draw_street(rng: np.random.Generator, size: int) -> tuple[Bytes, Bytes]:
    """Draws a street.

    Args:
        rng: Source of all choices.
        size: Height S in pixels.

    Returns:
        RGB of shape `(S, 2S, 3)` and official label ids of shape `(S, 2S)`.
    """
    canvas = Canvas(size, rng)
    x, horizon, half_road = rng.uniform((52, 24, 40), (76, 31, 56))
    street = Street(x, horizon, half_road)
    _paint_houses(canvas, street)
    _paint_ground(canvas, street)
    _place_things(canvas, street)
    _paint_frame(canvas, street)
    return develop(canvas.image, rng), canvas.ids


def _paint_houses(canvas: Canvas, street: Street) -> None:
    """Sky, and on both sides a row of fronts that get higher towards the viewer."""
    bright = 1 - 0.5 * np.clip(canvas.y / street.horizon, 0, 1)[..., None]
    canvas.paint(canvas.y < HEIGHT, "sky", 1 - bright * (1 - np.array(canvas.jitter((0.45, 0.62, 0.85), 0.04))))
    for side in (-1, 1):
        near = canvas.rng.uniform(0, 8)
        while near < WIDTH:
            far = near + canvas.rng.uniform(6, 12) + 0.25 * near
            along = side * (canvas.x - street.x)
            top = street.horizon - 3 - 0.42 * (near + far) / 2 * canvas.rng.uniform(0.5, 1.5)
            here = (along >= near) & (along < far) & (canvas.y > top) & (canvas.y < HEIGHT)
            wall = canvas.jitter(_WALLS[int(canvas.rng.integers(len(_WALLS)))])
            canvas.paint(here, "building", wall)
            pane = 1.5 + 0.03 * far
            grid = ((along - near) % (2.4 * pane) > pane) & ((canvas.y - top) % (2.8 * pane) > 1.3 * pane)
            canvas.paint(here & grid, "building", (0.2, 0.24, 0.3))
            near = far + canvas.rng.choice((0.0, 0.0, 5.0))


def _paint_ground(canvas: Canvas, street: Street) -> None:
    """Terrain, sidewalks and the road with its middle line, all below the horizon."""
    scale = np.clip((canvas.y - street.horizon) / (HEIGHT - street.horizon), 1e-6, None)
    across = (canvas.x - street.x) / (street.half_road * scale)
    below = canvas.y >= street.horizon
    canvas.paint(below & (np.abs(across) < 2.6), "terrain", canvas.mottled(canvas.jitter((0.45, 0.5, 0.25)), 1, 0.15))
    slabs = ((across * 4 % 2) < 1) ^ ((8 * np.log(scale + 0.05)) % 2 < 1)
    stone = np.where(slabs[..., None], 0.66, 0.56) * np.ones(3)
    canvas.paint(below & (np.abs(across) < _SIDEWALK), "sidewalk", stone)
    canvas.paint(below & (np.abs(across) < 1), "road", canvas.mottled(canvas.jitter((0.3, 0.3, 0.32), 0.02), 1, 0.1))
    dashes = below & (np.abs(across) < 0.03) & ((8 * np.log(scale + 0.05)) % 2 < 1)
    canvas.paint(dashes, "road", (0.85, 0.85, 0.82))


# thing, chance of each kind, least and greatest distance from the middle of the road
_THINGS: Final[tuple[tuple[Callable[[Canvas, Spot], None], float, float, float], ...]] = (
    (add_car, 0.30, 0.2, 0.75),
    (add_bus, 0.06, 0.3, 0.6),
    (add_person, 0.24, 0.6, 1.5),
    (add_pole, 0.18, 1.1, 1.3),
    (add_tree, 0.16, 1.55, 2.2),
    (add_bin, 0.06, 1.2, 1.5),
)


def _place_things(canvas: Canvas, street: Street) -> None:
    """Six to eleven things at random, far ones first."""
    rng = canvas.rng
    scales = np.sort(rng.uniform(0.18, 0.85, int(rng.integers(6, 12))))
    for scale in scales:
        add, _, least, greatest = _THINGS[int(rng.choice(len(_THINGS), p=[chance for _, chance, _, _ in _THINGS]))]
        across = rng.uniform(least, greatest) * rng.choice((-1, 1))
        add(canvas, street.spot(float(scale), float(across)))


def _paint_frame(canvas: Canvas, street: Street) -> None:
    """The bonnet of the car that carries the camera, and a black frame of one pixel: both are void."""
    bonnet = canvas.ellipse(street.x, HEIGHT + 3, 46, 9)
    canvas.paint(bonnet, "ego vehicle", (0.1, 0.1, 0.12))
    frame = np.ones(canvas.ids.shape, dtype=np.bool_)
    frame[1:-1, 1:-1] = False
    canvas.paint(frame, "out of roi", (0.0, 0.0, 0.0))
