"""timm's RandAugment as a pure function of image and random numbers; of `data`, only this file imports timm.

timm is imported on first use: that takes seconds, and most recipes need none of it.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frugalseg.errors import ConfigError

_NUMBER = r"\d+(\.\d+)?"
_SECTIONS = {
    "m": r"m\d+",
    # the weighted sets draw without putting back, and the smaller one holds 14 operations
    "n": r"n([1-9]|1[0-4])",
    "p": r"p(0(\.\d+)?|1(\.0+)?)",
    "mstd": rf"mstd{_NUMBER}",
    "mmax": r"mmax[1-9]\d*",
    "inc": r"inc[01]",
    "t": r"t(weights|3aw|3a)",
}
"""Sections that a configuration may have after "rand", each once, in any order.

timm itself passes over sections without a number, takes an unknown set for the usual one, and of two sections of one
kind the first or the last, depending on the kind.
"""


class RandAugment:
    """RandAugment of timm, with the parameters that timm's training transforms give it for bicubic resizing.

    What a shift, shear or rotation uncovers gets the mean colour (`transforms_imagenet_train` of
    timm/data/transforms_factory.py).

    Args:
        config: as timm writes it: "rand" and sections m (magnitude), n (operations per image), p (probability of each),
            mstd (deviation of the magnitude), mmax (its upper bound), inc (1: all grow with the magnitude), t (set of
            operations), joined by "-".
        side: S of the images.
        mean: channel means on the scale 0..1.

    Raises:
        ConfigError: timm would not know what to make of `config`.
    """

    def __init__(self, config: str, side: int, mean: Sequence[float]) -> None:
        check_config(config)
        self.config, self.side = config, side
        self.fill = tuple(min(255, round(255 * value)) for value in mean)
        self._transform: Any = None

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Change one image; the global random numbers that timm draws from are left as they were.

        Args:
            image: (S, S, 3) uint8.
            rng: gives the seeds.

        Returns:
            (S, S, 3) uint8, perhaps read-only.
        """
        if self._transform is None:
            self._transform = self._build()
        with _seeded(rng):
            return np.asarray(self._transform(Image.fromarray(image)))

    def _build(self) -> object:
        from timm.data.auto_augment import rand_augment_transform

        parameters = {
            "translate_const": int(0.45 * self.side),
            "img_mean": self.fill,
            "interpolation": Image.Resampling.BICUBIC,
        }
        transform = rand_augment_transform(self.config, parameters)
        for operation in transform.ops:
            if operation.name.startswith("Posterize"):
                operation.aug_fn = partial(_posterize, operation.aug_fn)
        return transform


def _posterize(posterize: Callable[..., Image.Image], image: Image.Image, bits: int, **rest: object) -> Image.Image:
    """Keep so many bits of each channel; none is black.

    timm asks for none at the end of its scale, which a magnitude of 9 with a deviation of 0.5 reaches in one of 44
    draws. Pillow used to make the image black then; Pillow 13 refuses, which would end the training.
    """
    return posterize(image, bits, **rest) if bits > 0 else Image.new(image.mode, image.size)


def check_config(config: str) -> None:
    """Refuse a configuration that timm would stumble over in a worker, or silently read otherwise than it is meant.

    Args:
        config: see `RandAugment`.

    Raises:
        ConfigError: names the configuration and what is wrong with it.
    """
    first, *sections = config.split("-")
    seen: set[str] = set()
    wrong = [] if first == "rand" else [first]
    for section in sections:
        kinds = {kind for kind, pattern in _SECTIONS.items() if re.fullmatch(pattern, section, re.ASCII)}
        if not kinds or kinds & seen:
            wrong.append(section)
        seen |= kinds
    if wrong:
        raise ConfigError(
            f"recipe.randaugment is {config!r}, where {wrong[0]!r} is unknown or there twice: set it to null, or to"
            ' "rand" and sections such as m9, n2, p0.5, mstd0.5, mmax10, inc1, tweights, joined by "-"'
        )


@contextmanager
def _seeded(rng: np.random.Generator) -> Iterator[None]:
    """Within, the global random numbers of Python and NumPy are a function of `rng`; afterwards they are as before."""
    one, two = rng.integers(2**32, size=2).tolist()
    python, numpy = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002 - what timm draws from
    try:
        random.seed(one)
        np.random.seed(two)  # noqa: NPY002
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
