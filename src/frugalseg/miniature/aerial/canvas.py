"""The picture while it is painted, with the map of what each pixel shows.

Lengths are in *units*. A scene of iSAID has one pixel per unit; a picture of the DLRSD world is 96 units high at any
size, so that a bigger one shows the same scene with finer pixels.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from frugalseg.miniature.aerial.brush import Bools, Floats, Points

Window = tuple[slice, slice]


@dataclass
class Canvas:
    """A picture of `H x W` pixels.

    Attributes:
        height: H.
        width: W.
        scale: Pixels per unit.
        image: RGB around 0..255, not clipped, shape `(H, W, 3)`.
        surface: A `Surface` for every pixel, shape `(H, W)`.
        taken: Where no further object may lie, shape `(H, W)`.
    """

    height: int
    width: int
    scale: float = 1.0
    image: Floats = field(init=False)
    surface: NDArray[np.uint8] = field(init=False)
    taken: Bools = field(init=False)

    def __post_init__(self) -> None:
        """Starts black, and as grass: what it is before a ground is laid matters to nobody."""
        self.image = np.zeros((self.height, self.width, 3))
        self.surface = np.zeros((self.height, self.width), dtype=np.uint8)
        self.taken = np.zeros((self.height, self.width), dtype=np.bool_)

    @property
    def x(self) -> Floats:
        """Centres of the columns in units, shape `(1, W)`."""
        return np.asarray((np.arange(self.width) + 0.5)[None, :] / self.scale)

    @property
    def y(self) -> Floats:
        """Centres of the rows in units, shape `(H, 1)`."""
        return np.asarray((np.arange(self.height) + 0.5)[:, None] / self.scale)

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height in units."""
        return self.width / self.scale, self.height / self.scale

    def noise(self, rng: np.random.Generator, cell: float) -> Floats:
        """Value noise in 0..1: a random grid of the given cell, in units, interpolated linearly; shape `(H, W)`."""
        across, down = (int(length / cell) + 2 for length in self.extent)
        grid = rng.random((down, across))
        # not as products of matrices: their last bits depend on the number of threads
        row, below = _split(self.y / cell)
        column, beyond = _split(self.x / cell)
        rows = grid[row[:, 0]] * (1 - below) + grid[row[:, 0] + 1] * below
        return np.asarray(rows[:, column[0]] * (1 - beyond) + rows[:, column[0] + 1] * beyond)

    def at(self, x: float, y: float) -> int:
        """The surface at a point, or at the border next to it."""
        row = min(max(int(y * self.scale), 0), self.height - 1)
        column = min(max(int(x * self.scale), 0), self.width - 1)
        return int(self.surface[row, column])

    def window(self, x: float, y: float, radius: float) -> Window:
        """Rows and columns of the pixels within `radius` units of a point, as far as they are in the picture."""
        spans = []
        for centre, length in ((y, self.height), (x, self.width)):
            first = int(np.floor((centre - radius) * self.scale)) - 1
            last = int(np.ceil((centre + radius) * self.scale)) + 2
            spans.append(slice(min(max(first, 0), length), min(max(last, 0), length)))
        return spans[0], spans[1]

    def frame(self, window: Window, x: float, y: float, half: float, angle: float) -> Points:
        """Pixels of a window in the frame of an object at `(x, y)` with the given half-length and angle."""
        dx, dy = self.x[:, window[1]] - x, self.y[window[0]] - y
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / half
        v = (dy * np.cos(angle) - dx * np.sin(angle)) / half
        return Points(u, v, 1 / (half * self.scale))


def _split(position: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Whole and remaining parts."""
    whole = position.astype(np.intp)
    return whole, position - whole


def develop(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Contrast and brightness of the whole picture, pixel noise, and rounding to bytes."""
    contrast, brightness = rng.uniform((0.85, -12), (1.15, 12))
    image = (canvas.image - 120) * contrast + 120 + brightness + rng.normal(0, 5, canvas.image.shape)
    return np.asarray(np.rint(np.clip(image, 0, 255)), dtype=np.uint8)
