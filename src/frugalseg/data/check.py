"""Checks of a data set on disk against what was published."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.base import Sample, first_five
from frugalseg.data.io import check_mode, check_size, image_size, read_image, read_mask
from frugalseg.data.module import SegmentationData
from frugalseg.data.opening import open_image
from frugalseg.data.parallel import Progress, each
from frugalseg.errors import DatasetError, DatasetNotFoundError, ImageError, MaskError

Level = Literal["ok", "warn", "error"]


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
    look: Callable[[Sample, NDArray[np.int64]], None] | None = None,
) -> list[Finding]:
    """Check that images can be decoded, and masks against their images: mode, size and values; on all cores.

    Args:
        samples: with or without mask.
        num_classes: K, with the background.
        quick: read headers only, so that neither pixels nor values are looked at.
        progress: called with (samples done, samples in all).
        look: called with every sample whose mask was read, and (256,) pixels per class id.
    """
    workers = None if len(samples) > 64 else 1  # processes take longer to start than a few files to read
    seen = each(partial(_inspect, num_classes, quick), samples, workers, progress)
    findings = []
    for sample, (error, counts) in zip(samples, seen, strict=True):
        if error:
            findings.append(Finding("error", error))
        if look and counts is not None:
            look(sample, counts)
    masks = sum(sample.mask is not None for sample in samples)
    wrong = sum(bool(error) and sample.mask is not None for sample, (error, _) in zip(samples, seen, strict=True))
    if masks:
        what = f"{'mode and size' if quick else 'mode, size and ids'} of {masks - wrong:,} of {masks:,} are right"
        findings.append(Finding("error" if wrong else "ok", f"masks: {what}"))
    if bare := len(samples) - masks:
        bad = len([error for error, _ in seen if error]) - wrong
        what = f"{bare - bad:,} of {bare:,} images without mask can be {'opened' if quick else 'decoded'}"
        findings.append(Finding("error" if bad else "ok", what))
    return findings


def _inspect(num_classes: int, quick: bool, sample: Sample) -> tuple[str | None, NDArray[np.int64] | None]:
    """What is wrong with a sample, and the pixels per class id of its mask where that was read."""
    try:
        if quick:
            size = image_size(sample.image)
            if sample.mask is not None:
                _check_header(sample, sample.mask, size)
            return None, None
        height, width, _ = read_image(sample.image).shape
        if sample.mask is None:
            return None, None
        ids = read_mask(sample.mask, num_classes, (height, width), sample.image, sample.code)
    except (ImageError, MaskError) as error:
        return str(error), None
    return None, np.bincount(ids.ravel(), minlength=256)


def _check_header(sample: Sample, mask: Path, size: tuple[int, int]) -> None:
    if sample.code is None or sample.code.colours is None:
        with open_image(mask) as opened:
            check_mode(mask, opened.mode)
    found, slack = image_size(mask), sample.code.slack if sample.code else 0
    if max(abs(a - b) for a, b in zip(found, size, strict=True)) > slack:
        check_size(mask, found, sample.image, size)
