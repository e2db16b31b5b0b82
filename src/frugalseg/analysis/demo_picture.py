"""One picture of all four papers, from the runs of `make demo`: a row each, from what is given to what comes out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frugalseg.analysis.maps import predictions, read_maps
from frugalseg.analysis.pictures import Picture, captioned, enlarged
from frugalseg.analysis.token_pictures import stacked
from frugalseg.data.base import ClassTable, Sample
from frugalseg.data.io import read_image, read_mask
from frugalseg.data.opening import open_image
from frugalseg.errors import MapsError
from frugalseg.ops.palette import colourise, overlay

Labels = NDArray[np.integer]
GAP, COLUMNS = 6, 4


def row(title: str, cells: Sequence[Picture]) -> Picture:
    """Cells side by side under a title."""
    spaced = [np.pad(cell, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for cell in cells]
    return captioned(np.concatenate(spaced, axis=1), title)


def masked_row(
    title: str, sample: Sample, classes: ClassTable, painted: Mapping[str, Labels], given: str = "image"
) -> Picture:
    """An image, label maps laid over it, and the truth.

    Args:
        title: of the row.
        sample: with image and mask.
        classes: names and colours.
        painted: caption -> (H, W) ids.
        given: caption of the image.
    """
    image = read_image(sample.image)
    cells = [captioned(enlarged(image), given)]
    shown = dict(painted)
    if sample.mask is not None:
        shown["truth"] = read_mask(sample.mask, classes.num_classes, code=sample.code)
    cells += [
        captioned(enlarged(overlay(image, colourise(ids, classes.palette), 0.65)), text) for text, ids in shown.items()
    ]
    return row(title, cells)


def rule_labels(folder: Path, sample: Sample, rule: str) -> Labels:
    """Labels that a rule of `ops.cam.RULES` makes of one image's maps.

    Raises:
        MapsError: the maps are missing, damaged, or do not serve the rule.
    """
    path = folder / f"{sample.id}.npz"
    found = predictions(read_maps(path), (rule,))
    if rule not in found:
        raise MapsError(f"{path}: does not serve the rule {rule}; run the stage that makes the maps again")
    return np.asarray(found[rule].numpy())


def first_row(panel: Path) -> Picture:
    """The upper half of an episode's panel: support, query, truth and prediction.

    Raises:
        MapsError: the panel cannot be read.
    """
    try:
        picture = np.asarray(open_image(panel, error=MapsError).convert("RGB"))
    except (OSError, ValueError) as error:
        raise MapsError(f"{panel}: not readable ({error}); delete it and run the test stage again") from error
    return picture[: picture.shape[0] // 2]


def shows_several(sample: Sample, least: int = 2) -> bool:
    """Whether an image is tagged with several classes."""
    return len(sample.tags or ()) >= least


def first_that(samples: Sequence[Sample], wanted: Callable[[Sample], bool]) -> Sample:
    """The first sample that is wanted, else the first of all: nothing is picked by its result."""
    return next((sample for sample in samples if wanted(sample)), samples[0])


def poster(rows: Sequence[Picture]) -> Picture:
    """Rows below one another, those of fewer or larger cells scaled to the common width."""
    width = max(each.shape[1] for each in rows)
    scaled = []
    for each in rows:
        part = width / each.shape[1]
        size = width, max(1, round(each.shape[0] * part))
        same = abs(part - 1) < 0.01
        scaled.append(each if same else np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BICUBIC)))
    return stacked(scaled)
