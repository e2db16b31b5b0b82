"""How often each class occurs: images and pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.base import ClassTable, Sample, count_tags
from frugalseg.data.io import read_mask
from frugalseg.data.parallel import Progress, each
from frugalseg.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Frequencies:
    """Class frequencies of a split.

    Attributes:
        images: (K,) int64, images that show the class; from the image-level labels where there are no masks.
        pixels: (K,) int64, pixels of the class; None without masks.
        ignored: pixels that no score looks at.
        masks: number of masks that were read.
    """

    images: NDArray[np.int64]
    pixels: NDArray[np.int64] | None
    ignored: int
    masks: int


def class_frequencies(
    samples: Sequence[Sample],
    classes: ClassTable,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Frequencies:
    """Count images and pixels per class.

    Args:
        samples: the split; where some have masks, those without are left out.
        classes: names of the K classes.
        workers: processes; None for all cores.
        progress: called with (masks done, masks in all).

    Raises:
        DatasetError: neither masks nor image-level labels.
        MaskError: a mask is damaged.
    """
    if masked := [sample for sample in samples if sample.mask is not None]:
        rows = each(partial(_histogram, classes.num_classes), masked, workers, progress)
        table = np.stack(rows)
        counts = table[:, : classes.num_classes]
        return Frequencies((counts > 0).sum(axis=0), counts.sum(axis=0), int(table[:, -1].sum()), len(masked))
    if all(sample.tags is None for sample in samples):
        raise DatasetError("the split has neither masks nor image-level labels: nothing can be counted; add the masks")
    images = count_tags(samples, classes.foreground)
    if classes.background:
        images = np.concatenate([[len(samples)], images])
    return Frequencies(images, None, 0, 0)


def _histogram(num_classes: int, sample: Sample) -> NDArray[np.int64]:
    """(K + 1,) pixels per class, then ignored ones."""
    if sample.mask is None:
        return np.zeros(num_classes + 1, np.int64)
    counts = np.bincount(read_mask(sample.mask, num_classes, code=sample.code).ravel(), minlength=IGNORE_INDEX + 1)
    return np.append(counts[:num_classes], counts[IGNORE_INDEX])
