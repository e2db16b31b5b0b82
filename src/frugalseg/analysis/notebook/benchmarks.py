"""Notebook 01: the six benchmarks in miniature: samples with their masks, class frequencies, splits and folds."""

from pathlib import Path
from typing import Any

import numpy as np

import frugalseg.data
from frugalseg.analysis.figures import COLOURS
from frugalseg.analysis.notebook.charts import finished, new_figure
from frugalseg.analysis.notebook.display import Plate, Sheet, plate_of, shown
from frugalseg.analysis.notebook.folders import Runs
from frugalseg.analysis.pictures import captioned, enlarged, grid
from frugalseg.data.base import Sample
from frugalseg.data.io import read_image, read_mask
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Segment
from frugalseg.data.stats import class_frequencies
from frugalseg.errors import DatasetError, FrugalsegError, RunFolderError
from frugalseg.ops.palette import colourise, overlay

MODULES = {
    "voc": "VOC", "coco": "COCO", "ade20k": "ADE20K", "cityscapes": "Cityscapes", "isaid5i": "ISAID5i",
    "dlrsd": "DLRSD",
}  # fmt: skip
"""Folder in runs/data-mini -> data module."""
SPLITS = ("train", "trainaug", "val")
USES = {
    "voc": "SFC, CTI; probes of MEVT", "coco": "SFC, CTI; probes of MEVT", "ade20k": "MEVT",
    "cityscapes": "MEVT", "isaid5i": "DSMF-Net", "dlrsd": "DSMF-Net",
}  # fmt: skip


def open_benchmark(runs: Runs, name: str, **settings: Any) -> SegmentationData:
    """A benchmark in miniature: of `make data-mini`, else the world that a study has left.

    Args:
        runs: the folder of runs.
        name: of `MODULES`.
        **settings: of its data module, such as `fold`.

    Raises:
        RunFolderError: there is neither.
    """
    if not (roots := _roots(runs, name)):
        raise RunFolderError(f"missing: {name} in miniature; `make data-mini` makes all six")
    data: SegmentationData = getattr(frugalseg.data, MODULES[name])(roots[0], Segment(), **settings)
    return data


def _roots(runs: Runs, name: str) -> list[Path]:
    worlds = runs.folder / "worlds"
    left = [worlds / f"{name}-seed{runs.seed}", worlds / f"{name}-longtail-seed{runs.seed}"]
    return [root for root in (runs.folder / "data-mini" / name, *left) if root.is_dir()]


@shown
def overview(runs: Runs) -> Sheet:
    """Images and classes of every benchmark that is there."""
    rows = []
    for name in MODULES:
        if not _roots(runs, name):
            rows.append([name, "missing: `make data-mini` makes it", *["-"] * (2 + len(SPLITS))])
            continue
        data = open_benchmark(runs, name)
        background = "with background" if data.classes.background else "no background"
        rows.append([name, USES[name], background, str(data.num_classes), *[_count(data, split) for split in SPLITS]])
    return Sheet(
        "Six benchmarks, in miniature", ["benchmark", "used by", "class 0", "classes", *SPLITS], rows,
        ["images of each split; '-' where a benchmark has no such split"], wordy=3,
    )  # fmt: skip


def _count(data: SegmentationData, split: str) -> str:
    """Images of a split, and how many have no mask."""
    try:
        samples = data.index(split)
    except FrugalsegError:
        return "-"
    bare = sum(sample.mask is None for sample in samples)
    return f"{len(samples)}" + (f" ({bare} without mask)" if bare else "")


@shown
def samples(runs: Runs, name: str, count: int = 6, split: str = "train") -> Plate:
    """Images beside their masks in the benchmark's colours; what no score looks at is left as it is."""
    data = open_benchmark(runs, name)
    masked = [sample for sample in data.index(split) if sample.mask is not None]
    if not masked:
        raise DatasetError(f"{name}: no image of {split} has a mask")
    # evenly over the split: neighbours may be of one scene, or of one folder
    chosen = [masked[place] for place in np.linspace(0, len(masked) - 1, min(count, len(masked))).round().astype(int)]
    return plate_of(grid([_pair(data, sample) for sample in chosen], 3), f"{name}: images and masks")


def _pair(data: SegmentationData, sample: Sample) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = read_image(sample.image)
    mask = read_mask(Path(sample.mask or ""), data.num_classes, code=sample.code)
    painted = np.where((mask == 255)[..., None], image, overlay(image, colourise(mask, data.palette), 0.75))
    present = [data.class_names[i] for i in np.unique(mask) if i != 255 and (i or not data.classes.background)]
    wide = np.concatenate([enlarged(image, 144), enlarged(painted.astype(np.uint8), 144)], axis=1)
    return captioned(wide, ", ".join(present)[: wide.shape[1] // 6])


@shown
def frequencies(runs: Runs, *names: str, split: str = "train") -> Plate:
    """Images per class, the commonest first, on a scale of powers of ten: the long tail is the slope.

    Benchmarks that are not there are left out; `overview` says which.
    """
    drawn = [name for name in names if _roots(runs, name)] or list(names)
    found = [(name, open_benchmark(runs, name)) for name in drawn]
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure = new_figure(4.6 * columns, 3.2 * rows)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, data) in zip(cells, found, strict=False):
        counts = class_frequencies(data.index(split), data.classes, workers=1).images
        classes = [i for i in np.argsort(-counts, kind="stable") if i or not data.classes.background]
        colours = [data.palette[i] / 255 if len(classes) < 60 else COLOURS[0] for i in classes]
        axes.bar(range(len(classes)), counts[classes], color=colours, edgecolor="0.4", linewidth=0.5)
        axes.set_yscale("symlog")
        there = counts[classes][counts[classes] > 0]
        ratio = there.max() / there.min() if len(there) else float("nan")
        axes.set_title(f"{name}: {ratio:.1f} to 1", fontsize=10)
        if len(classes) <= 20:
            axes.set_xticks(range(len(classes)), [data.class_names[i] for i in classes], rotation=90, fontsize=7)
        axes.set_ylabel("images")
    for axes in cells[len(found) :]:
        axes.set_visible(False)
    figure.suptitle(f"images per class in {split}")
    return finished(figure, f"images per class of {', '.join(drawn)}")


@shown
def folds(runs: Runs, name: str) -> Sheet:
    """Few-shot folds: which classes each one tests, and how many (image, class) pairs train and test it."""
    rows = []
    for fold in (0, 1, 2):
        data = open_benchmark(runs, name, fold=fold)
        tested = ", ".join(data.class_names[i] for i in data.fold_classes)
        rows.append([str(fold), tested, str(len(data.pairs("train"))), str(len(data.pairs("test")))])
    return Sheet(f"{name}: folds", ["fold", "tested classes", "pairs to train", "pairs to test"], rows, wordy=2)
