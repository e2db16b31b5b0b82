"""`frugalseg data prepare folder`: tags of a user's folder from its masks."""

import csv
import io
from functools import partial
from pathlib import Path

import numpy as np

from frugalseg.data.base import Sample
from frugalseg.data.folder_files import TAGS, find_layout
from frugalseg.data.folder_index import Index, read_words, refuse_colours
from frugalseg.data.io import read_mask, write_atomic
from frugalseg.data.parallel import Progress, each
from frugalseg.errors import DatasetError, MaskError


def write_tags(root: str | Path, least: int = 1, workers: int | None = None, progress: Progress | None = None) -> int:
    """Write `tags.csv`: for every image with a mask, the classes that the mask shows.

    Args:
        root: a user's folder, see `Folder`, with a file of classes.
        least: pixels that a class must have in a mask.
        workers: processes; None for all cores.
        progress: called with (masks done, masks in all).

    Returns:
        Number of rows.

    Raises:
        DatasetNotFoundError: root is not there.
        DatasetError: there are tags already, no masks or no classes.
        MaskError: a mask is damaged, or holds ids that no class has.
    """
    layout = find_layout(root)
    target = layout.root / TAGS
    if layout.tags is not None:
        raise DatasetError(
            f"{target}: is there already and is not replaced; take it away to have it made from the masks"
        )
    if layout.classes is None:
        raise DatasetError(f"{layout.root}: has no classes.txt: name the classes of the masks in it, one a line")
    index = Index(layout, *read_words(layout))
    masked = [sample for sample in index.every() if sample.mask is not None]
    if not masked:
        raise DatasetError(f"{layout.root}: has no masks to make tags from; add masks/<path of the image>.png")
    refuse_colours(masked, layout.root / "palette.csv")
    names = index.classes.table.names
    found = each(partial(_shown, len(names), least), masked, workers, progress)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "tags"])
    for sample, classes in zip(masked, found, strict=True):
        place = sample.image.relative_to(layout.images).as_posix()
        writer.writerow([place, ";".join(names[number] for number in classes)])
    content = text.getvalue().encode("utf-8", "backslashreplace")
    write_atomic(target, lambda stream: stream.write(content))
    return len(masked)


def _shown(num_classes: int, least: int, sample: Sample) -> list[int]:
    """Ids of the classes that a mask shows, without the background."""
    if sample.mask is None:
        raise MaskError(f"{sample.image}: has no mask")
    ids = read_mask(sample.mask, num_classes, code=sample.code)
    counts = np.bincount(ids.ravel(), minlength=256)[:num_classes]
    return [number for number in range(1, num_classes) if counts[number] >= least]
