"""Augmentations that albumentations has; the only file that imports it.

It is imported on first use: that takes seconds, and SFC's published VOC recipe needs none of it.
"""

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


class Augment:
    """A pipeline whose result is a pure function of (image, mask, seed).

    Order: rescale, flip, colour. Seeding and calling cost 0.1 to 0.3 ms an image beside the work itself.

    Args:
        long_side: the longer side becomes a uniform integer lo..hi (bicubic; mask nearest); None for off.
        scale: both sides times a uniform number lo..hi (bicubic; mask nearest); None for off.
        flip: probability of a horizontal flip.
        colour: strength of the colour jitter: brightness, contrast and saturation times 1 - colour .. 1 + colour, hue
            turned by up to a quarter of it; 0 for off.
    """

    def __init__(
        self,
        long_side: tuple[int, int] | None = None,
        scale: tuple[float, float] | None = None,
        flip: float = 0.0,
        colour: float = 0.0,
    ) -> None:
        self.long_side, self.scale, self.flip, self.colour = long_side, scale, flip, colour
        self._compose: Any = None

    @property
    def active(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.long_side or self.scale or self.flip or self.colour)

    def __call__(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Augment one image.

        Args:
            image: (H, W, 3) uint8.
            mask: (H, W) uint8 or None.
            rng: gives the seeds.

        Returns:
            Image and mask, of a new size where a rescaling is on.
        """
        if not self.active:
            return image, mask
        if self._compose is None:
            self._compose = self._build()
        # one seed each: Compose.set_random_seed hands the same to all, which ties the scale to the brightness
        steps: Sequence[Any] = self._compose.transforms
        for step, seed in zip(steps, rng.integers(2**32, size=len(steps)).tolist(), strict=True):
            step.set_random_seed(seed)
        if mask is None:
            return self._compose(image=image)["image"], None
        both = self._compose(image=image, mask=mask)
        return both["image"], both["mask"]

    def _build(self) -> object:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask the network for a newer version
        import albumentations as A

        resize = {"interpolation": cv2.INTER_CUBIC, "mask_interpolation": cv2.INTER_NEAREST, "p": 1.0}
        steps: list[object] = []
        if self.long_side:
            low, high = self.long_side
            steps.append(A.LongestMaxSize(max_size=list(range(low, high + 1)), **resize))
        if self.scale:
            steps.append(A.RandomScale(scale_limit=(self.scale[0] - 1, self.scale[1] - 1), **resize))
        if self.flip:
            steps.append(A.HorizontalFlip(p=self.flip))
        if self.colour:
            span = (max(0.0, 1 - self.colour), 1 + self.colour)
            hue = min(0.5, self.colour / 4)
            steps.append(A.ColorJitter(brightness=span, contrast=span, saturation=span, hue=(-hue, hue), p=1.0))
        return A.Compose(steps)
