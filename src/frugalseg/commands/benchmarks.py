"""The benchmarks by the names that `frugalseg data` takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# a recipe becomes known by its short name when it is imported
from frugalseg.data import ade20k, cityscapes, coco, dlrsd, folder, images, isaid5i, resized_segment, views, voc  # noqa: F401
from frugalseg.data.check import Finding, check_splits
from frugalseg.data.check_folder import check_folder
from frugalseg.data.check_images import check_images
from frugalseg.data.check_voc import check_voc
from frugalseg.data.module import SegmentationData
from frugalseg.data.parallel import Progress
from frugalseg.data.recipes import Segment
from frugalseg.data.stats import class_frequencies
from frugalseg.errors import MaskError


@dataclass(frozen=True)
class Benchmark:
    """What the verbs need to know.

    Attributes:
        make: root -> its data module.
        published: split -> number of images.
        notes: root -> findings that only this benchmark has.
        check: (root, quick, progress) -> findings, in place of the check that all others share.
    """

    make: Callable[[Path], SegmentationData]
    published: Mapping[str, int]
    notes: Callable[[Path], list[Finding]] = lambda _: []
    check: Callable[[Path, bool, Progress | None], list[Finding]] | None = None

    def findings(self, root: Path, quick: bool = False, progress: Progress | None = None) -> list[Finding]:
        """Check a folder.

        Args:
            root: the benchmark's folder.
            quick: read headers only.
            progress: called with (files done, files in all).

        Raises:
            DatasetNotFoundError: root is not there.
        """
        if self.check:
            return self.check(root, quick, progress)
        return check_splits(self.make(root), self.published, quick, progress) + self.notes(root)


def _unpaired(root: Path) -> list[Finding]:
    return [Finding("error", what) for what in cityscapes.unpaired(root)]


def _dlrsd(root: Path) -> list[Finding]:
    findings = []
    if odd := dlrsd.odd_sizes(root):
        sizes = ", ".join(f"{len(ids)} of {h}x{w}" for (h, w), ids in sorted(odd.items()))
        findings.append(Finding("warn", f"images that are not 256x256 (HxW): {sizes}; recipes pad or crop them"))
    samples = [sample for sample in dlrsd.index(root, "all") if sample.mask is not None]
    try:
        found = class_frequencies(samples, dlrsd.class_table())
    except MaskError:
        return findings  # said already, and by file
    if found.ignored and found.pixels is not None and not found.pixels[-1]:
        what = "the masks hold 0 but never 17: they seem to be numbered from 0; add 1 to every value"
        findings.append(Finding("error", what))
    elif found.ignored:
        findings.append(Finding("warn", f"{found.ignored:,} pixels hold 0 or 18 and are ignored; the release has none"))
    return findings


BENCHMARKS: dict[str, Benchmark] = {
    "voc": Benchmark(lambda root: voc.VOC(root, Segment()), voc.COUNTS, check=check_voc),
    "coco2014": Benchmark(lambda root: coco.COCO(root, Segment(), year=2014), coco.COUNTS[2014]),
    "coco2017": Benchmark(lambda root: coco.COCO(root, Segment(), year=2017), coco.COUNTS[2017]),
    "coco-stuff": Benchmark(lambda root: coco.COCO(root, Segment(), year=2017, labels="stuff171"), coco.COUNTS[2017]),
    "coco-stuff27": Benchmark(lambda root: coco.COCO(root, Segment(), year=2017, labels="stuff27"), coco.COUNTS[2017]),
    "ade20k": Benchmark(lambda root: ade20k.ADE20K(root, Segment()), ade20k.COUNTS),
    "cityscapes": Benchmark(lambda root: cityscapes.Cityscapes(root, Segment()), cityscapes.COUNTS, _unpaired),
    "cityscapes27": Benchmark(
        lambda root: cityscapes.Cityscapes(root, Segment(), labels="27"), cityscapes.COUNTS, _unpaired
    ),
    "isaid5i": Benchmark(lambda root: isaid5i.ISAID5i(root, Segment()), isaid5i.COUNTS),
    "dlrsd": Benchmark(lambda root: dlrsd.DLRSD(root, Segment()), dlrsd.COUNTS, _dlrsd),
    "images": Benchmark(lambda root: images.Images(root, views.Views()), {}, check=check_images),
    "folder": Benchmark(lambda root: folder.Folder(root, Segment()), {}, check=check_folder),
}
