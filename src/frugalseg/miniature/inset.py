"""A small object that lies wholly on a big one, as a cup does on a table."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from frugalseg.miniature.looks import Look
from frugalseg.miniature.paint import PERIOD, UNITS, axis, body_outline, paint_surface, tip_outline

_REACH: Final = 19.0  # from the middle of an object of scale 1 to its farthest point, in units
_MIDDLE: Final = 1.2  # of body and tip, along the axis
_SCALES: Final = (0.25, 0.4)  # below, nothing of it can be recognised
_NOISE: Final = 0.035


def add_inset(
    image: NDArray[np.uint8], region: NDArray[np.bool_], look: Look, rng: np.random.Generator
) -> NDArray[np.bool_] | None:
    """Paints a small object, in place, where a region is broadest.

    Args:
        image: RGB, shape `(S, S, 3)`.
        region: Where it must lie, shape `(S, S)`.
        look: What it looks like.
        rng: Source of all choices.

    Returns:
        Its pixels, shape `(S, S)`; None where the region is too narrow, and then the image stays as it is.
    """
    # exact, so that ties stay ties: OpenCV's distances differ in the last bit from run to run, and with them the place
    room = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(room.argmax()), room.shape)
    units = axis(len(image))
    scale = min(_SCALES[1], float(room.max() - 1) * UNITS / len(image) / _REACH)
    if scale < _SCALES[0]:
        return None
    angle = rng.uniform(0, 2 * np.pi)
    dx, dy = units[None, :] - units[column], units[:, None] - units[row]
    u = dx * np.cos(angle) + dy * np.sin(angle) + _MIDDLE * scale
    v = dy * np.cos(angle) - dx * np.sin(angle)
    tip = tip_outline(look.shape, u / scale, v / scale)
    body = body_outline(u / scale, v / scale) & ~tip
    gain = np.full((1, 3), rng.uniform(0.8, 1.15))
    for part, surface in ((body, look.body), (tip, look.tip)):
        shade = np.concatenate([gain, rng.normal(0, 0.04, (2, 3))])
        phase = rng.uniform(0, PERIOD, 2)
        colours = paint_surface(surface, u[part] + phase[0], v[part] + phase[1], shade)
        noisy = np.clip(colours + rng.normal(0, _NOISE, colours.shape), 0, 1)
        image[part] = np.rint(noisy * 255).astype(np.uint8)
    return np.asarray(body | tip)
