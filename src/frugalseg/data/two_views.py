"""One or two views of an image as random resized crops; with two, the second one is strongly augmented."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from frugalseg.data import settings
from frugalseg.data.randaugment import RandAugment, check_config
from frugalseg.data.resized_crop import ResizedCrop
from frugalseg.data.transforms import Augment
from frugalseg.data.view_boxes import Span
from frugalseg.errors import ConfigError


class WeakAndStrong:
    """A random resized crop and, with two views, an independent one that is changed further.

    The second crop is not registered to the first: CTI's losses need no correspondence (papers/cti.md 1.2).

    Args:
        views: 1 or 2.
        crop: draws either view.
        randaugment: changes the second one; None for off.
        jitter: does so where there is no `randaugment`.
    """

    def __init__(self, views: int, crop: ResizedCrop, randaugment: RandAugment | None, jitter: Augment) -> None:
        self.views, self.crop, self.randaugment, self.jitter = views, crop, randaugment, jitter

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
        """Make the views, the weak one first, so that it does not depend on whether there is another.

        Args:
            image: (H, W, 3) uint8.
            rng: source of randomness.

        Returns:
            One or two (S, S, 3) uint8.
        """
        weak = self.crop(image, rng)
        return [weak] if self.views == 1 else [weak, self._strong(image, rng)]

    def _strong(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        view = self.crop(image, rng)
        return self.jitter(view, None, rng)[0] if self.randaugment is None else self.randaugment(view, rng)


def weak_and_strong(
    views: int,
    crop: int | None,
    long_side: Span | None,
    area: Span | None,
    aspect: Span,
    flip: float,
    randaugment: str | None,
    colour: float,
    mean: Sequence[float],
) -> WeakAndStrong | None:
    """Make what `Tags` takes its views from; None where it crops onto a canvas instead, which is without `area`.

    Arguments are those of `Tags`.

    Raises:
        ConfigError: settings that no image can have, that contradict one another, or that would do nothing.
    """
    settings.one_of("recipe.views", views, (1, 2))
    settings.span("recipe.area", area)
    settings.span("recipe.aspect", aspect)
    settings.at_least("recipe.colour", colour, 0)
    if randaugment is not None:
        check_config(randaugment)
    if colour and views == 1:
        raise ConfigError(f"recipe.colour is {colour}, but only a second view is jittered: set recipe.views to 2")
    if colour and randaugment is not None:
        raise ConfigError(
            f"recipe.colour is {colour} and recipe.randaugment {randaugment!r}, but the second view takes one of them:"
            " set recipe.colour to 0 or recipe.randaugment to null"
        )
    if area is None:
        if views == 2:
            raise ConfigError("recipe.views is 2, but recipe.area is null: set recipe.area, for CTI to [0.3, 1.2]")
        return None
    if area[0] > 1:
        raise ConfigError(f"recipe.area is {area}, which fits into no image: set it to lo, hi with lo <= 1")
    if crop is None:
        raise ConfigError("recipe.area is set, but recipe.crop is null: set recipe.crop to the side of the views")
    if long_side is not None:
        raise ConfigError("recipe.long_side is of no use to resized crops: set it or recipe.area to null")
    # no hue: timm takes one number as the strength of brightness, contrast and saturation
    strong = None if randaugment is None else RandAugment(randaugment, crop, mean)
    return WeakAndStrong(views, ResizedCrop(crop, area, aspect, flip), strong, Augment(colour=colour, hue=0.0))
