"""Notebook 05: dense features of a pre-trained net, and how probes judged them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor
from torch.nn.functional import normalize

from frugalseg.analysis.dense_pictures import (
    cluster_colours,
    component_colours,
    fit_components,
    neighbour_row,
    on_pixels,
    side_by_side,
)
from frugalseg.analysis.dense_rows import DenseRow, has_dense, read_rows
from frugalseg.analysis.dense_tables import NOTE, TITLE, columns
from frugalseg.analysis.match_pictures import crops_match
from frugalseg.analysis.notebook.charts import bar_chart
from frugalseg.analysis.notebook.display import Plate, Sheet, plate_of, shown
from frugalseg.analysis.notebook.folders import Runs
from frugalseg.analysis.notebook.scores import mean_and_std
from frugalseg.analysis.pictures import Picture, enlarged, grid
from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.io import read_image, read_mask
from frugalseg.data.module import SegmentationData
from frugalseg.errors import RunFolderError
from frugalseg.ops.clustering import cluster_counts, match_by_pixels

SHOWN_SIDE, POINTS, VIEW = 192, 4, 64
"""Least pixels of an image's side, points per row of a match, and pixels of a view's side."""


class FeatureNet(Protocol):
    """What `frugalseg.load` gives for a pre-trained net, as far as it is used here."""

    stride: int

    def features(self, image: Sequence[Picture]) -> list[Tensor]:
        """(D, h, w) of every image."""


@dataclass(frozen=True)
class Seen:
    """Images and what a net makes of them.

    Attributes:
        name: of the experiment.
        net: the net.
        data: where the images are from.
        names: of the images.
        raw: (H, W, 3) uint8.
        masks: (H, W) class ids.
        maps: (D, h, w).
    """

    name: str
    net: FeatureNet
    data: SegmentationData
    names: list[str]
    raw: list[Picture]
    masks: list[NDArray[np.uint8]]
    maps: list[Tensor]

    def __repr__(self) -> str:
        size = f"{self.maps[0].shape[0]} channels, a cell is {self.net.stride} pixels wide"
        return f"{self.name}: features of {len(self.raw)} images, {size}"


@shown
def look(runs: Runs, experiment: str, load: Callable[[Path], FeatureNet], images: int = 6) -> Seen:
    """Features of images that the net was not trained on, evenly over the split.

    Args:
        runs: the folder of runs.
        experiment: with a pre-training.
        load: `frugalseg.load`.
        images: how many.
    """
    stage = runs.stage(experiment, "pretrain")
    checkpoint = stage / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        raise RunFolderError(f"missing: {checkpoint.name} of {experiment}; run its make target again")
    # the images that its probe is judged on; a pre-training has none of its own
    data = runs.data(runs.stage(experiment, "probe", "pretrain"))
    samples = [sample for sample in data.index(data.splits["val"]) if sample.mask is not None]
    places = np.linspace(0, len(samples) - 1, min(images, len(samples))).round().astype(int)
    chosen = [samples[place] for place in places]
    net, raw = load(checkpoint), [read_image(sample.image) for sample in chosen]
    masks = [read_mask(Path(s.mask or ""), data.num_classes, code=s.code) for s in chosen]
    return Seen(experiment, net, data, [sample.id for sample in chosen], raw, masks, net.features(raw))


@shown
def components(seen: Seen) -> Plate:
    """Three principal components of all cells together as red, green and blue: equal colours are equal features."""
    found = fit_components(seen.maps)
    return plate_of(_painted(seen, [component_colours(each, found) for each in seen.maps]), "principal components")


@shown
def clusters(seen: Seen) -> Plate:
    """k-means of all cells, as many clusters as classes; each takes the colour of the class that it covers best."""
    shown_classes = {int(v) for mask in seen.masks for v in np.unique(mask)} - {IGNORE_INDEX}
    count = max(2, len(shown_classes))
    points = normalize(torch.cat([each.flatten(1).T for each in seen.maps]).float(), dim=1)
    _, found = kmeans2(points.double().numpy(), count, minit="++", seed=0)
    parts = np.split(found, np.cumsum([each[0].numel() for each in seen.maps])[:-1])
    ids = [part.reshape(each.shape[-2:]).astype(np.int64) for part, each in zip(parts, seen.maps, strict=True)]
    total = np.zeros((seen.data.num_classes, count), dtype=np.int64)
    for each, mask in zip(ids, seen.masks, strict=True):
        spread = np.asarray(on_pixels(each, seen.net.stride, (mask.shape[0], mask.shape[1])))
        truth = torch.from_numpy(mask.astype(np.int64))
        total += cluster_counts(torch.from_numpy(spread), truth, count, seen.data.num_classes, IGNORE_INDEX).numpy()
    owners = match_by_pixels(total)
    cells = [cluster_colours(each, seen.data.palette, owners) for each in ids]
    return plate_of(_painted(seen, cells), f"{count} clusters in the colours of their classes")


@shown
def matches(seen: Seen, count: int = 4) -> Plate:
    """Two crops of an image and points that they share; lines are red where the features of both crops agree."""
    pictures = [
        crops_match(seen.net.features, name, image, np.random.default_rng(number), POINTS, VIEW, SHOWN_SIDE // VIEW)
        for number, (name, image) in enumerate(zip(seen.names[:count], seen.raw[:count], strict=True))
    ]
    return plate_of(grid(pictures, 2), "points that two crops share")


@shown
def neighbours(seen: Seen, rows: int = 2) -> Plate:
    """The middle cell of an image, and how near the cells of the other images are to it."""
    factor = max(1, -(-SHOWN_SIDE // min(min(image.shape[:2]) for image in seen.raw)))
    images = [image.repeat(factor, axis=0).repeat(factor, axis=1) for image in seen.raw]
    cells: list[Picture] = []
    for number, each in enumerate(seen.maps[:rows]):
        query = number, each.shape[1] // 2, each.shape[2] // 2
        cells += neighbour_row(images, seen.maps, seen.names, seen.net.stride * factor, query)
    return plate_of(grid(cells, len(images)), "nearest neighbours of a cell")


def _painted(seen: Seen, cells: Sequence[Picture]) -> Picture:
    """Images beside cells, both enlarged."""
    pixels = [
        np.asarray(on_pixels(each, seen.net.stride, (image.shape[0], image.shape[1])), dtype=np.uint8)
        for each, image in zip(cells, seen.raw, strict=True)
    ]
    side = SHOWN_SIDE
    return side_by_side([enlarged(i, side) for i in seen.raw], [enlarged(p, side) for p in pixels], seen.names)


def _rows(runs: Runs, names: tuple[str, ...], start: str) -> list[DenseRow]:
    experiments = runs.named(list(names)) if names else runs.experiments()
    rows = [row for e in experiments if has_dense(e) for row in read_rows(e) if row.stage.startswith(start)]
    if not rows:
        raise RunFolderError(
            f"missing: {start or 'evaluation'} of {', '.join(names) or 'any'}; `make mini-mevt` makes it"
        )
    return rows


@shown
def judged(runs: Runs, *names: str) -> Sheet:
    """Every probe, clustering and fine-tuning, over seeds; of all experiments where none is named."""
    heads, lines = columns(_rows(runs, names, ""))
    return Sheet(TITLE, heads, lines, [NOTE], wordy=4)


@shown
def probes(runs: Runs, *names: str) -> Plate:
    """Mean IoU and pixel accuracy of linear probes on frozen features, with the deviation over seeds."""
    rows = _rows(runs, names, "probe")
    labels = {"mean IoU": "val/miou", "pixel accuracy": "val/accuracy"}
    series = {row.experiment: [mean_and_std(row.figures, key) for key in labels.values()] for row in rows}
    return bar_chart(list(labels), series, "%", "Linear probes on frozen features")
