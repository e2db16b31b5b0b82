"""Augmentations that albumentations has; the only file that imports it.

It is imported on first use: that takes seconds, and SFC's published VOC recipe needs none of it.
"""

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.colour_rule import ORDERS, THRESHOLD, blur_radius


class Augment:
    """A pipeline whose result is a pure function of (image, mask, seed).

    Order: rescale, rotate, flip, colour. Seeding and calling cost 0.1 to 0.3 ms an image beside the work itself.

    Args:
        long_side: the longer side becomes a uniform integer lo..hi (bicubic; mask nearest); None for off.
        scale: both sides times a uniform number lo..hi (bicubic; mask nearest); None for off.
        rotate: rotation by a uniform angle of up to so many degrees to either side (bilinear; mask nearest); 0 for off.
        flip: probability of a horizontal flip.
        vertical_flip: probability of a vertical flip.
        fill: RGB, 0..255, of what a rotation uncovers; the mask gets 255 there.
        colour: strength of the colour jitter: brightness, contrast and saturation times 1 - colour .. 1 + colour; 0 for
            off.
        hue: the hue is turned by up to this part of a circle to either side; None for a quarter of `colour`.
    """

    def __init__(
        self,
        long_side: tuple[int, int] | None = None,
        scale: tuple[float, float] | None = None,
        flip: float = 0.0,
        colour: float = 0.0,
        rotate: float = 0.0,
        vertical_flip: float = 0.0,
        fill: Sequence[int] = (0, 0, 0),
        hue: float | None = None,
    ) -> None:
        self.long_side, self.scale, self.flip, self.colour = long_side, scale, flip, colour
        self.rotate, self.vertical_flip, self.fill = rotate, vertical_flip, tuple(fill)
        self.hue = min(0.5, colour / 4) if hue is None else hue
        self._compose: Any = None

    @property
    def active(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self.long_side or self.scale or self.rotate or self.flip or self.vertical_flip or self.colour or self.hue
        )

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

        # INTER_NEAREST would shift masks by up to half a pixel against their images
        resize = {"interpolation": cv2.INTER_CUBIC, "mask_interpolation": cv2.INTER_NEAREST_EXACT, "p": 1.0}
        steps: list[object] = []
        if self.long_side:
            low, high = self.long_side
            steps.append(A.LongestMaxSize(max_size=list(range(low, high + 1)), **resize))
        if self.scale:
            steps.append(A.RandomScale(scale_limit=(self.scale[0] - 1, self.scale[1] - 1), **resize))
        if self.rotate:
            turn = {"interpolation": cv2.INTER_LINEAR, "mask_interpolation": cv2.INTER_NEAREST, "p": 1.0}
            border = {"border_mode": cv2.BORDER_CONSTANT, "fill": self.fill, "fill_mask": IGNORE_INDEX}
            steps.append(A.Rotate(limit=self.rotate, **turn, **border))
        if self.flip:
            steps.append(A.HorizontalFlip(p=self.flip))
        if self.vertical_flip:
            steps.append(A.VerticalFlip(p=self.vertical_flip))
        if self.colour or self.hue:
            span, hue = (max(0.0, 1 - self.colour), 1 + self.colour), (-self.hue, self.hue)
            steps.append(A.ColorJitter(brightness=span, contrast=span, saturation=span, hue=hue, p=1.0))
        return A.Compose(steps)


class ColourChanges:
    """Makes colour changes that have been drawn beforehand.

    The steps' `apply` is called with the drawn numbers: a Compose that draws them itself costs 0.1 to 0.25 ms a view,
    several times the work on a small one, and the device could not make the same changes from its seeds.
    """

    def __init__(self) -> None:
        self._steps: Any = None

    def __call__(self, image: NDArray[np.uint8], parameters: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Change the colours of one view.

        Args:
            image: (H, W, 3) uint8.
            parameters: (P,) float32, a row of `ColourRule.draw`.

        Returns:
            (H, W, 3) uint8.
        """
        if self._steps is None:
            self._steps = self._build()
        jitter, grey, blur, solarise = self._steps
        brightness, contrast, saturation, hue, order, is_grey, sigma, is_solarised = parameters.tolist()
        image = jitter.apply(image, brightness, contrast, saturation, hue, ORDERS[int(order)])
        if is_grey:
            image = grey.apply(image)
        if radius := blur_radius(sigma):
            weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
            image = blur.apply(image, weights / weights.sum())
        return solarise.apply(image, THRESHOLD) if is_solarised else image

    def _build(self) -> tuple[Any, Any, Any, Any]:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations as A

        return A.ColorJitter(), A.ToGray(), A.GaussianBlur(), A.Solarize()
