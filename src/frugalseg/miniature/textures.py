"""Grey-level textures, told apart by their structure and not by their colours.

With colours of their own, textures of one class need not be recognised at all, and with random ones nothing is left
to learn from; grey levels that all classes share leave exactly the structure. All lengths are in *units*, see `plane`.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PERIOD: Final = (6.0, 9.0)  # least and greatest, in units
BLOCK: Final = 4.0  # side of a block
NOISE: Final = 0.03  # of every pixel
_TINT: Final = 0.03


def plane(height: int, width: int, units: float) -> tuple[Floats, Floats]:
    """Coordinates of pixel centres, such that a bigger picture shows the same scene with finer pixels.

    Args:
        height: H in pixels.
        width: W in pixels.
        units: Height of the picture in units.

    Returns:
        x and y in units, each of shape `(H, W)`.
    """
    y, x = np.mgrid[:height, :width]
    return (x + 0.5) * (units / height), (y + 0.5) * (units / height)


def _wave(u: Floats, period: float) -> Floats:
    return np.asarray((u % period) < period / 2, dtype=np.float64)


def _stripes(u: Floats, _v: Floats, period: float, _rng: np.random.Generator) -> Floats:
    return _wave(u, period)


def _checker(u: Floats, v: Floats, period: float, _rng: np.random.Generator) -> Floats:
    return np.abs(_wave(u, period) - _wave(v, period))


def _rings(u: Floats, v: Floats, period: float, _rng: np.random.Generator) -> Floats:
    return _wave(np.hypot(u, v), period)


def _blocks(u: Floats, v: Floats, _period: float, rng: np.random.Generator) -> Floats:
    column, row = (np.floor(w / BLOCK).astype(np.intp) for w in (u, v))
    column, row = column - column.min(), row - row.min()
    return np.asarray(rng.random((int(column.max()) + 1, int(row.max()) + 1))[column, row])


def _waves(u: Floats, v: Floats, period: float, rng: np.random.Generator) -> Floats:
    # The second direction differs by 45 to 135 degrees, else the sum of both would be stripes.
    angle, other = rng.uniform((np.pi / 4, PERIOD[0]), (3 * np.pi / 4, PERIOD[1]))
    along = u * np.cos(angle) + v * np.sin(angle)
    return np.asarray(0.5 + 0.25 * (np.sin(2 * np.pi * u / period) + np.sin(2 * np.pi * along / other)))


_PATTERNS: Final[dict[str, Callable[[Floats, Floats, float, np.random.Generator], Floats]]] = {
    "stripes": _stripes,
    "checker": _checker,
    "rings": _rings,
    "blocks": _blocks,
    "waves": _waves,
}
TEXTURES: Final = tuple(_PATTERNS)


def paint_texture(name: str, x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """A texture of random orientation, phase, period and grey levels.

    Args:
        name: One of `TEXTURES`.
        x: Horizontal distance from the centre of the region, in units, shape `(H, W)`.
        y: The same downward.
        rng: Source of all choices.

    Returns:
        RGB from about 0.1 to 1, the dark parts around 0.15 to 0.35 and the bright ones around 0.70 to 0.90, with a
        slight tint; shape `(H, W, 3)`.
    """
    angle, period = rng.uniform((0, PERIOD[0]), (2 * np.pi, PERIOD[1]))
    shift = rng.uniform(0, period, 2)
    u = x * np.cos(angle) + y * np.sin(angle) + shift[0]
    v = y * np.cos(angle) - x * np.sin(angle) + shift[1]
    level = _PATTERNS[name](u, v, period, rng)[..., None]
    dark, bright = rng.uniform((0.15, 0.70), (0.35, 0.90))[:, None] + rng.normal(0, _TINT, (2, 3))
    return np.asarray(dark + (bright - dark) * level)


def paint_ground(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """A slow sinusoid of low contrast; see `paint_texture`."""
    angle, period, phase, grey = rng.uniform((0, 40, 0, 0.4), (2 * np.pi, 80, 2 * np.pi, 0.6))
    along = x * np.cos(angle) + y * np.sin(angle)
    level = grey + 0.08 * np.sin(2 * np.pi * along / period + phase)
    return np.asarray(level[..., None] + rng.normal(0, _TINT, 3))


def develop(image: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Adds pixel noise to RGB in 0..1 and rounds it to bytes; shape `(H, W, 3)`."""
    return np.rint(np.clip(image + rng.normal(0, NOISE, image.shape), 0, 1) * 255).astype(np.uint8)
