"""Checks of a data set on disk against what was published."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from frugalseg.data.base import Sample, count_tags, first_five
from frugalseg.data.io import check_mode, check_size, image_size, read_mask
from frugalseg.data.lists import read_ids, read_labels
from frugalseg.data.voc import CLASS_COUNTS, COUNTS, class_table, locate, mask_folder, split_ids
from frugalseg.errors import DatasetError, ImageError, MaskError

Level = Literal["ok", "warn", "error"]
Progress = Callable[[int, int], None]


class Finding(NamedTuple):
    """One line of a report: "error" is to be mended, "warn" may be meant."""

    level: Level
    what: str


def check_voc(root: str | Path, quick: bool = False, progress: Progress | None = None) -> list[Finding]:
    """Check a VOC 2012 folder.

    Args:
        root: folder VOCdevkit/VOC2012.
        quick: read only the headers of masks (mode, size), not their values.
        progress: called with (files done, files in all).

    Returns:
        Findings: splits, labels, then masks.

    Raises:
        DatasetNotFoundError: root is not there.
    """
    root = locate(root)
    findings: list[Finding] = []
    pairs: dict[Path, Sample] = {}  # by mask: train and trainaug share images, not masks
    images = _names(root / "JPEGImages")
    for split in COUNTS:
        ids = _split(root, split, images, findings)
        if ids and split != "test":
            pairs |= _masks(root, split, ids, findings)
    findings.append(_labels())
    return findings + _files(root, pairs, quick, progress)


def _names(folder: Path) -> set[str]:
    return {entry.stem for entry in folder.iterdir()} if folder.is_dir() else set()


def _split(root: Path, split: str, images: set[str], findings: list[Finding]) -> list[str]:
    """Report on a split's list and images; returns the ids whose images are there."""
    try:
        ids, on_disk = split_ids(root, split)
    except DatasetError as error:
        findings.append(Finding("error", str(error)))
        return []
    published, origin = COUNTS[split], "list on disk" if on_disk else "packaged list"
    if class_table(root).names != class_table("").names:
        what = f"{split}: {len(ids)} ids, {origin}; the classes are not VOC's, so nothing is published"
        findings.append(Finding("ok", what))
    elif len(ids) == published:
        findings.append(Finding("ok", f"{split}: {len(ids):,} ids as published, {origin}"))
    else:
        kind = "smaller" if len(ids) < published else "larger"
        what = f"{split}: {origin} has {len(ids):,} ids, {kind} than the published {published:,}"
        findings.append(Finding("warn", what))
    if missing := [name for name in ids if name not in images]:
        # a packaged list need not be wanted here; a list on disk promises its images
        level: Level = "error" if on_disk else "warn"
        what = f"{split}: {len(missing):,} of {len(ids):,} images are missing, first {first_five(missing)}"
        findings.append(Finding(level, what))
    return [name for name in ids if name in images]


def _masks(root: Path, split: str, ids: list[str], findings: list[Finding]) -> dict[Path, Sample]:
    folder = root / mask_folder(split)
    there = _names(folder)
    if not there:
        findings.append(Finding("warn", f"{split}: folder {folder.name} is absent or empty: no masks"))
    elif missing := [name for name in ids if name not in there]:
        count = f"{len(missing):,} of {len(ids):,}"
        what = f"{split}: {count} masks are missing in {folder.name}, first {first_five(missing)}"
        findings.append(Finding("error", what))
    paths = {name: folder / f"{name}.png" for name in ids if name in there}
    return {mask: Sample(name, root / "JPEGImages" / f"{name}.jpg", mask, None) for name, mask in paths.items()}


def _labels() -> Finding:
    labels = read_labels("voc12")
    samples = [Sample(name, Path(), None, labels[name]) for name in read_ids("voc12", "trainaug")]
    same = np.array_equal(count_tags(samples, len(CLASS_COUNTS)), CLASS_COUNTS)
    what = f"packaged labels: class counts of trainaug {'are' if same else 'are NOT'} the published ones"
    return Finding("ok" if same else "error", what)


def _files(root: Path, pairs: dict[Path, Sample], quick: bool, progress: Progress | None) -> list[Finding]:
    num_classes = class_table(root).num_classes
    errors: list[Finding] = []
    for done, (mask, sample) in enumerate(pairs.items(), 1):
        try:
            _file(mask, sample, num_classes, quick)
        except (ImageError, MaskError) as error:
            errors.append(Finding("error", str(error)))
        if progress:
            progress(done, len(pairs))
    what = "mode and size" if quick else "mode, size and ids"
    good = len(pairs) - len(errors)
    return [*errors, Finding("error" if errors else "ok", f"masks: {what} of {good:,} of {len(pairs):,} are right")]


def _file(mask: Path, sample: Sample, num_classes: int, quick: bool) -> None:
    size = image_size(sample.image)
    if not quick:
        read_mask(mask, num_classes, size, sample.image)
        return
    mask_size = image_size(mask)
    with Image.open(mask) as opened:
        check_mode(mask, opened.mode)
    check_size(mask, mask_size, sample.image, size)
