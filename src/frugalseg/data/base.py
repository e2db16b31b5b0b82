"""What every benchmark says about one image and about its classes."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.codes import MaskCode
from frugalseg.data.io import Keep


@dataclass(frozen=True)
class Sample:
    """One image of a split.

    Attributes:
        id: name of the image without folder and suffix.
        image: the image file.
        mask: its mask, or None where there is none.
        tags: sorted 0-based FOREGROUND class indices (background is not a tag), or None where unknown.
        code: how the numbers in `mask` become class ids; None: they are class ids, and 255.
        keep: asked for decoded image and mask before the files are; None where nothing is kept.
    """

    id: str
    image: Path
    mask: Path | None
    tags: tuple[int, ...] | None
    code: MaskCode | None = None
    keep: Keep | None = None


@dataclass(frozen=True, kw_only=True)
class Episode(Sample):
    """A one-way few-shot episode: the query with its supports.

    Attributes:
        class_id: the class that is foreground; every other class is background.
        supports: K samples that show the class, none of them the query.
        number: of the episode within its split.
    """

    class_id: int
    supports: tuple[Sample, ...]
    number: int


class Pair(NamedTuple):
    """An image and one class that it shows: what few-shot lists hold.

    Attributes:
        id: name of the image.
        class_id: value of the class in the (decoded) mask.
    """

    id: str
    class_id: int


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Names and colours of a benchmark's classes.

    Attributes:
        names: in the order of the class ids; background first where there is one.
        palette: (256, 3) uint8, row = class id.
        background: whether class 0 is the background; where not (ADE20K), what no class covers is void.
    """

    names: tuple[str, ...]
    palette: NDArray[np.uint8]
    background: bool = True

    @property
    def num_classes(self) -> int:
        """Number of classes, with the background where there is one."""
        return len(self.names)

    @property
    def foreground(self) -> int:
        """C, number of foreground classes."""
        return len(self.names) - int(self.background)


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


def samples_digest(listed: Mapping[str, Sequence[Sample]]) -> str:
    """SHA-256 over samples: ids, tags, and the sizes in bytes of images and masks.

    Args:
        listed: role -> samples.
    """
    hasher = hashlib.sha256()
    for role, found in sorted(listed.items()):
        for sample in found:
            sizes = [path.stat().st_size for path in (sample.image, sample.mask) if path is not None]
            hasher.update(repr((role, sample.id, sample.tags, sizes)).encode())
    return hasher.hexdigest()
