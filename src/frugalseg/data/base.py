"""What every benchmark says about one image and about its classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One image of a split.

    Attributes:
        id: name of the image without folder and suffix.
        image: the image file.
        mask: its mask, or None where there is none.
        tags: sorted 0-based FOREGROUND class indices (background is not a tag), or None where unknown.
    """

    id: str
    image: Path
    mask: Path | None
    tags: tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Names and colours of a benchmark's classes.

    Attributes:
        names: background first.
        palette: (256, 3) uint8, row = id in a mask.
    """

    names: tuple[str, ...]
    palette: NDArray[np.uint8]

    @property
    def num_classes(self) -> int:
        """Number of classes with the background."""
        return len(self.names)


def first_five(ids: Iterable[str]) -> str:
    """The first five ids, for messages."""
    return ", ".join(list(ids)[:5])


def count_tags(samples: Sequence[Sample], classes: int) -> NDArray[np.int64]:
    """Count the images per foreground class.

    Args:
        samples: samples; those without tags count nowhere.
        classes: C, number of foreground classes.

    Returns:
        (C,) int64.
    """
    flat = [tag for sample in samples for tag in sample.tags or ()]
    return np.bincount(np.asarray(flat, dtype=np.int64), minlength=classes).astype(np.int64)
