"""Checks of settings: a wrong one is refused when its recipe is made, not hours later in a loader's worker."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from frugalseg.errors import ConfigError

if TYPE_CHECKING:  # predictors normalise, and augment nothing
    from frugalseg.data.transforms import Augment


def at_least(name: str, value: float, least: float) -> None:
    """Refuse what is below `least`, infinite or no number.

    Raises:
        ConfigError: names the key and the value.
    """
    _demand(math.isfinite(value) and value >= least, name, value, f"a number from {least} upward")


def probability(name: str, value: float) -> None:
    """Refuse what is outside 0..1.

    Raises:
        ConfigError: names the key and the value.
    """
    _demand(0 <= value <= 1, name, value, "a probability, 0 to 1")


def positive(name: str, values: Sequence[float]) -> None:
    """Refuse an empty sequence, or one that holds zero, a negative or an infinite number.

    Raises:
        ConfigError: names the key and the value.
    """
    right = len(values) > 0 and all(math.isfinite(value) and value > 0 for value in values)
    _demand(right, name, values, "one or more numbers above 0")


def span(name: str, value: Sequence[float] | None) -> None:
    """Refuse a range lo..hi that is not 0 < lo <= hi; None is off.

    Raises:
        ConfigError: names the key and the value.
    """
    if value is not None:
        right = len(value) == 2 and 0 < value[0] <= value[1] < math.inf
        _demand(right, name, value, "two numbers lo, hi with 0 < lo <= hi")


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse what is not among `allowed`.

    Raises:
        ConfigError: names the key and the value.
    """
    _demand(value in allowed, name, value, " or ".join(map(str, allowed)))


def colours(mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse means and standard deviations that no RGB image on the scale 0..1 has.

    Raises:
        ConfigError: names the key and the value.
    """
    numbers = all(isinstance(value, int | float) for value in (*mean, *std))
    _demand(numbers, "recipe.mean and recipe.std", [mean, std], "numbers")
    right = len(mean) == 3 and all(0 <= value <= 1 for value in mean)
    _demand(right, "recipe.mean", mean, "three numbers on the scale 0..1 (divide those on the scale 0..255 by 255)")
    positive("recipe.std", std)
    _demand(len(std) == 3, "recipe.std", std, "three numbers above 0")


def augmentation(augment: "Augment") -> None:
    """Refuse an augmentation that no image can have.

    Raises:
        ConfigError: names the key and the value.
    """
    span("recipe.long_side", augment.long_side)
    span("recipe.scale", augment.scale)
    probability("recipe.flip", augment.flip)
    probability("recipe.vertical_flip", augment.vertical_flip)
    at_least("recipe.colour", augment.colour, 0)
    _demand(0 <= augment.hue <= 0.5, "recipe.hue", augment.hue, "0 to 0.5, parts of a circle")
    at_least("recipe.rotate", augment.rotate, 0)


def _demand(right: bool, name: str, value: object, wanted: str) -> None:
    if not right:
        raise ConfigError(f"{name} is {value}: set it to {wanted}")
