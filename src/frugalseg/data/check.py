"""Checks of a data set on disk against what was published."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frugalseg.data.base import Sample, first_five
from frugalseg.data.io import check_mode, check_size, image_size, read_mask
from frugalseg.data.module import SegmentationData
from frugalseg.errors import DatasetError, DatasetNotFoundError, ImageError, MaskError

Level = Literal["ok", "warn", "error"]
Progress = Callable[[int, int], None]


class Finding(NamedTuple):
    """One line of a report: "error" is to be mended, "warn" may be meant."""

    level: Level
    what: str


def check_splits(
    data: SegmentationData, published: Mapping[str, int], quick: bool = False, progress: Progress | None = None
) -> list[Finding]:
    """Check the splits of a benchmark: counts, images, masks, their sizes and values.

    Args:
        data: the benchmark.
        published: split -> published number of images.
        quick: read only the headers of masks, not their values.
        progress: called with (files done, files in all).

    Returns:
        Findings: splits first, then files.

    Raises:
        DatasetNotFoundError: the root is not there, or none of the splits.
    """
    findings: list[Finding] = []
    samples: dict[tuple[str, str], Sample] = {}
    absent: list[DatasetNotFoundError] = []
    for split, count in published.items():
        try:
            found = data.index(split)
        except DatasetNotFoundError as error:
            absent.append(error)  # a split need not be wanted
            findings.append(Finding("warn", f"{split}: {error}"))
        except DatasetError as error:
            findings.append(Finding("error", f"{split}: {error}"))
        else:
            findings += _counted(split, found, count)
            samples |= {(sample.id, str(sample.mask)): sample for sample in found}
    if len(absent) == len(published):
        raise absent[0]
    return findings + check_files(list(samples.values()), data.num_classes, quick, progress)


def _counted(split: str, found: Sequence[Sample], published: int) -> list[Finding]:
    size = f"{split}: {len(found):,} images"
    if len(found) == published:
        findings = [Finding("ok", f"{size} as published")]
    else:
        kind = "fewer" if len(found) < published else "more"
        findings = [Finding("warn", f"{size}, {kind} than the published {published:,}")]
    bare = [sample.id for sample in found if sample.mask is None]
    if len(bare) == len(found):
        findings.append(Finding("warn", f"{split}: no masks"))
    elif bare:
        what = f"{split}: {len(bare):,} of {len(found):,} masks are missing, first {first_five(bare)}"
        findings.append(Finding("error", what))
    return findings


def check_files(
    samples: Sequence[Sample],
    num_classes: int,
    quick: bool = False,
    progress: Progress | None = None,
    look: Callable[[Sample, NDArray[np.uint8]], None] | None = None,
) -> list[Finding]:
    """Check masks against their images: mode, size and, unless `quick`, values.

    Args:
        samples: those without mask are skipped.
        num_classes: K, with the background.
        quick: read headers only.
        progress: called with (files done, files in all).
        look: called with every mask that was read, for further checks.
    """
    masked = [sample for sample in samples if sample.mask is not None]
    errors: list[Finding] = []
    for done, sample in enumerate(masked, 1):
        try:
            ids = _check_file(sample, num_classes, quick)
            if look and ids is not None:
                look(sample, ids)
        except (ImageError, MaskError) as error:
            errors.append(Finding("error", str(error)))
        if progress:
            progress(done, len(masked))
    what = "mode and size" if quick else "mode, size and ids"
    good = len(masked) - len(errors)
    return [*errors, Finding("error" if errors else "ok", f"masks: {what} of {good:,} of {len(masked):,} are right")]


def _check_file(sample: Sample, num_classes: int, quick: bool) -> NDArray[np.uint8] | None:
    """Class ids of the sample's mask, unless only headers are read."""
    if sample.mask is None:
        return None
    size = image_size(sample.image)
    if not quick:
        return read_mask(sample.mask, num_classes, size, sample.image, sample.code)
    mask_size = image_size(sample.mask)
    slack = sample.code.slack if sample.code else 0
    if sample.code is None or sample.code.colours is None:
        with Image.open(sample.mask) as opened:
            check_mode(sample.mask, opened.mode)
    if max(abs(a - b) for a, b in zip(mask_size, size, strict=True)) > slack:
        check_size(sample.mask, mask_size, sample.image, size)
    return None
