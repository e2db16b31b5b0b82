"""Checks of a VOC 2012 folder against what was published."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.base import Sample, count_tags, first_five
from frugalseg.data.check import Finding, Level, check_files
from frugalseg.data.lists import read_histograms, read_ids, read_labels
from frugalseg.data.parallel import Progress
from frugalseg.data.voc import CLASS_COUNTS, COUNTS, class_table, locate, mask_folder, split_ids
from frugalseg.errors import DatasetError


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
    usual = _Usual()
    findings += check_files(list(pairs.values()), class_table(root).num_classes, quick, progress, usual.look)
    return findings + usual.findings()


class _Usual:
    """Compares masks of SegmentationClassAug with the distribution that everybody uses, by their pixels per class."""

    def __init__(self) -> None:
        self.known = read_histograms()
        self.equal, self.others = 0, list[str]()

    def look(self, sample: Sample, counts: NDArray[np.int64]) -> None:
        """Compare one mask by its (256,) pixels per class id."""
        if sample.mask is None or sample.mask.parent.name != "SegmentationClassAug" or sample.id not in self.known:
            return
        if np.array_equal(np.append(counts[:21], counts[255]), self.known[sample.id]):
            self.equal += 1
        else:
            self.others.append(sample.id)

    def findings(self) -> list[Finding]:
        """What came of it."""
        if not self.equal and not self.others:
            return []
        count = f"{self.equal:,} of {self.equal + len(self.others):,} masks have the usual pixels per class"
        if not self.others:
            return [Finding("ok", f"SegmentationClassAug: {count}")]
        return [Finding("warn", f"SegmentationClassAug: {count}; others are {first_five(self.others)}")]


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
        if not on_disk:
            return []  # a packaged list is of VOC's images
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
