"""One or two views of an image as random resized crops; with two, the second one is strongly augmented."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from frugalseg.data import settings
from frugalseg.data.base import Sample
from frugalseg.data.picture import Picture
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
        scaled: decode JPEGs at the part of their size that the crops allow; see `picture`.
    """

    def __init__(
        self, views: int, crop: ResizedCrop, randaugment: RandAugment | None, jitter: Augment, scaled: bool = False
    ) -> None:
        self.views, self.crop, self.randaugment, self.jitter, self.scaled = views, crop, randaugment, jitter, scaled

    def __call__(self, sample: Sample, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
        """Make the views, the weak one first, so that it does not depend on whether there is another.

        Args:
            sample: whose image.
            rng: source of randomness.

        Returns:
            One or two (S, S, 3) uint8.
        """
        picture = Picture(sample, self.scaled)
        draws = [self.crop.draw(picture.size, rng) for _ in range(self.views)]
        crops, _ = picture.crops(np.array([box for box, _ in draws]), [self.crop.side] * self.views)
        weak, *strong = (self.crop.finish(crop, draw[1]) for crop, draw in zip(crops, draws, strict=True))
        return [weak, *(self._strengthened(view, rng) for view in strong)]

    def _strengthened(self, view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
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
    scaled: bool = False,
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
        if scaled:
            raise ConfigError(
                "recipe.scaled is true, but of use to resized crops alone: set recipe.area, or it to false"
            )
        return None
    if area[0] > 1:
        raise ConfigError(f"recipe.area is {area}, which fits into no image: set it to lo, hi with lo <= 1")
    if crop is None:
        raise ConfigError("recipe.area is set, but recipe.crop is null: set recipe.crop to the side of the views")
    if long_side is not None:
        raise ConfigError("recipe.long_side is of no use to resized crops: set it or recipe.area to null")
    # no hue: timm takes one number as the strength of brightness, contrast and saturation
    strong = None if randaugment is None else RandAugment(randaugment, crop, mean)
    return WeakAndStrong(views, ResizedCrop(crop, area, aspect, flip), strong, Augment(colour=colour, hue=0.0), scaled)
