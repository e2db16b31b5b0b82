"""A canvas for street scenes, which keeps image and labels together.

Lengths are in units, of which a picture is 64 high and 128 wide.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from frugalseg.miniature.textures import Floats, plane

Bools = NDArray[np.bool_]
Colour = tuple[float, float, float]

HEIGHT: Final = 64.0
WIDTH: Final = 128.0
# The official ids (cityscapesScripts, `labels.py`) of the classes that occur here.
IDS: Final = {
    "ego vehicle": 1, "out of roi": 3, "static": 4,
    "road": 7, "sidewalk": 8, "building": 11, "pole": 17, "traffic sign": 20, "vegetation": 21, "terrain": 22,
    "sky": 23, "person": 24, "car": 26, "bus": 28,
}  # fmt: skip


class Canvas:
    """An image and its label ids, painted together.

    Args:
        size: Height in pixels; the width is twice that.
        rng: Source of all choices.

    Attributes:
        x: Horizontal coordinates in units, shape `(H, W)`.
        y: The same downward.
        image: RGB in 0..1, shape `(H, W, 3)`.
        ids: Official label ids, shape `(H, W)`.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.x, self.y = plane(size, 2 * size, HEIGHT)
        self.image: Floats = np.zeros((size, 2 * size, 3))
        self.ids = np.zeros((size, 2 * size), dtype=np.uint8)

    def paint(self, where: Bools, label: str, colour: Floats | Colour) -> None:
        """Paints pixels with one colour or with those of an array `(H, W, 3)`, and labels them."""
        self.image[where] = np.broadcast_to(colour, self.image.shape)[where]
        self.ids[where] = IDS[label]

    def mottled(self, colour: Colour, block: float, contrast: float) -> Floats:
        """A colour whose brightness changes from block to block; `(H, W, 3)`."""
        rows, columns = (self.y / block).astype(np.intp), (self.x / block).astype(np.intp)
        light = self.rng.uniform(1 - contrast, 1 + contrast, (rows.max() + 1, columns.max() + 1))[rows, columns]
        return np.asarray(light[..., None] * np.array(colour))

    def jitter(self, colour: Colour, amount: float = 0.06) -> Colour:
        """A colour a little beside the given one."""
        red, green, blue = np.clip(np.array(colour) + self.rng.normal(0, amount, 3), 0.03, 0.97)
        return float(red), float(green), float(blue)

    def box(self, left: float, top: float, right: float, bottom: float) -> Bools:
        """Pixels of an upright rectangle."""
        return np.asarray((self.x >= left) & (self.x < right) & (self.y >= top) & (self.y < bottom))

    def ellipse(self, x: float, y: float, width: float, height: float) -> Bools:
        """Pixels of an upright ellipse, given by half its width and height."""
        return np.asarray(((self.x - x) / width) ** 2 + ((self.y - y) / height) ** 2 < 1)
