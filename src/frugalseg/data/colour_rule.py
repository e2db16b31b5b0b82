"""Which colour changes multi-crop views get: one row of P = 8 numbers per view, drawn on the CPU.

Factors of brightness, contrast and saturation, the turn of the hue, the number of their order, whether the view becomes
grey, the blur's sigma (0: none), whether it is solarised. Jitter, grey, blur and solarising come in that order, as in
DINO's public code. They are made by `transforms.ColourChanges` on the CPU or by `colour.finish_views` on the device.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from frugalseg.errors import ConfigError

BRIGHTNESS, CONTRAST, SATURATION, HUE, ORDER, GREY, SIGMA, SOLARISE = range(8)
ORDERS = tuple(permutations((BRIGHTNESS, CONTRAST, SATURATION, HUE)))
NEUTRAL = np.array([1, 1, 1, 0, 0, 0, 0, 0], np.float32)
THRESHOLD = 0.5
"""Solarising inverts what is at least this bright."""


def blur_radius(sigma: float) -> int:
    """Pixels to either side that a blur looks at; beyond, its weights are below 0.3 % of the largest.

    Args:
        sigma: standard deviation in pixels of the view.
    """
    return int(3.5 * sigma)


@dataclass(frozen=True)
class ColourRule:
    """Strengths and probabilities; the defaults are those of DINO's public code.

    Attributes:
        brightness: strength b: the factor is uniform in 1 - b .. 1 + b.
        contrast: the same.
        saturation: the same.
        hue: the hue is turned by up to this part of a circle to either side, at most 0.5.
        jitter: probability of the four changes above, which come in random order.
        grey: probability of taking the colours away.
        blur: probabilities of a Gaussian blur for global view 1, global view 2 and local views.
        sigma: the blur's standard deviation is uniform in lo..hi pixels of the view.
        solarise: probabilities of solarising for global view 1, global view 2 and local views.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    jitter: float = 0.8
    grey: float = 0.2
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise: tuple[float, float, float] = (0.0, 0.2, 0.0)

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            ConfigError: a strength or a probability out of its range.
        """
        if not all(0 <= p <= 1 for p in (self.jitter, self.grey, *self.blur, *self.solarise)):
            raise ConfigError("ColourRule: probabilities (jitter, grey, blur, solarise) must be in 0..1")
        if min(self.brightness, self.contrast, self.saturation, self.hue) < 0 or self.hue > 0.5:
            raise ConfigError("ColourRule: brightness, contrast, saturation must be at least 0, hue in 0..0.5")
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ConfigError("ColourRule: sigma must be two numbers with 0 < lo <= hi")

    def draw(self, views: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw the changes of one image's views.

        Args:
            views: V, the two global views first.
            rng: source of randomness.

        Returns:
            (V, P) float32.
        """
        kind = np.minimum(np.arange(views), 2)
        chance, amount = rng.random((4, views)), rng.random((6, views))
        strength = np.array([self.brightness, self.contrast, self.saturation, self.hue])[:, None]
        low, high = np.maximum(NEUTRAL[:4, None] - strength, [[0], [0], [0], [-1]]), NEUTRAL[:4, None] + strength
        drawn = np.zeros((views, 8), np.float32)
        drawn[:, :4] = np.where(chance[0] < self.jitter, low + amount[:4] * (high - low), NEUTRAL[:4, None]).T
        drawn[:, ORDER] = (amount[4] * len(ORDERS)).astype(int)
        drawn[:, GREY] = chance[1] < self.grey
        sigma = self.sigma[0] + amount[5] * (self.sigma[1] - self.sigma[0])
        drawn[:, SIGMA] = np.where(chance[2] < np.array(self.blur)[kind], sigma, 0)
        drawn[:, SOLARISE] = chance[3] < np.array(self.solarise)[kind]
        return drawn
