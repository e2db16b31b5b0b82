"""`frugalseg pictures`: what the dense features of a pre-trained net see, in four pictures.

`pca.png`: three principal components as red, green, blue. `clusters.png`: k-means of the cells; with --named each
cluster takes the class that it shares most pixels with (Hungarian, on the shown images). `matches.png`: points that two
crops share, lines red where their features agree. `neighbours.png`: a cell of one image, and its nearest in the others.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from frugalseg.analysis.dense_pictures import (
    NOBODY,
    cluster_colours,
    component_colours,
    fit_components,
    legend,
    neighbour_row,
    on_pixels,
    side_by_side,
)
from frugalseg.analysis.match_pictures import crops_match
from frugalseg.analysis.pictures import Picture, grid, save_png
from frugalseg.analysis.token_pictures import stacked
from frugalseg.batch import IGNORE_INDEX
from frugalseg.commands.benchmarks import BENCHMARKS
from frugalseg.data.base import ClassTable, Sample
from frugalseg.data.io import read_image, read_mask
from frugalseg.errors import ConfigError
from frugalseg.ops.clustering import cluster_counts, match_by_pixels
from frugalseg.predictor import FeaturePredictor, open_features
from frugalseg.stages.cluster.kmeans import closeness, fit_centres

VIEW, POINTS, LEAST = 224, 5, 192
"""Longest side of a view, points per row, and pixels that a picture's shorter side is enlarged to."""


class Seen(NamedTuple):
    """Images and their features; `images` are enlarged for the eye, a cell is then of `stride` of their pixels."""

    names: list[str]
    images: list[Picture]
    maps: list[Tensor]
    stride: int


def run(argv: list[str]) -> int:
    """Draw all four."""
    parser = argparse.ArgumentParser("frugalseg pictures", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="of `frugalseg fit`, or a folder of `frugalseg package`")
    parser.add_argument("--data", required=True, choices=sorted(BENCHMARKS), help="whose images")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=6, help="how many, evenly over the split; at least 2")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--clusters", type=int, default=8, help="of k-means; --named takes the shown classes' number")
    parser.add_argument("--named", action="store_true", help="give clusters the names and colours of classes")
    parser.add_argument("--side", type=int, default=320, help="images whose shorter side is longer are shrunk to this")
    parser.add_argument("--seed", type=int, default=0, help="of k-means, crops and query cells")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    if options.images < 2 or not 2 <= options.clusters <= 255 or options.side < 32 or options.seed < 0:
        raise ConfigError("--images and --clusters must be at least 2 (clusters at most 255), --side 32, --seed 0")
    net = open_features(options.checkpoint, options.device)
    data = BENCHMARKS[options.data].make(options.root)
    samples = spread(data.index(options.split), options.images)
    raw = [shrunk(read_image(sample.image), options.side) for sample in samples]
    seen = look(net, [sample.id for sample in samples], raw)
    masks = [_mask(sample, data.classes, image) for sample, image in zip(samples, raw, strict=True)]
    drawn = {
        "pca": component_picture(seen),
        "clusters": cluster_picture(seen, data.classes, masks if options.named else None, options),
        "matches": matches_picture(net, seen.names, raw, options.seed),
        "neighbours": neighbours_picture(seen, options.seed),
    }
    for name, picture in drawn.items():
        save_png(options.out / f"{name}.png", picture)
    print(f"{options.out}: {', '.join(f'{name}.png' for name in drawn)} of {len(samples)} images, {options.split}")
    return 0


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """So many samples, evenly over a split, the first and the last one among them; all where there are fewer.

    Raises:
        ConfigError: there are fewer than two.
    """
    if len(samples) < 2:
        raise ConfigError(f"--split has {len(samples)} image(s), but 2 are needed to compare; give another one")
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[place] for place in places]


def shrunk(image: Picture, side: int) -> Picture:
    """An image whose shorter side is at most so long, by Pillow's bicubic; the image itself where it is."""
    part = side / min(image.shape[:2])
    if part >= 1:
        return image
    size = max(1, round(image.shape[1] * part)), max(1, round(image.shape[0] * part))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def look(net: FeaturePredictor, names: list[str], raw: Sequence[Picture]) -> Seen:
    """Features of images, and the images large enough for the eye."""
    factor = max(1, -(-LEAST // min(min(image.shape[:2]) for image in raw)))
    images = [image.repeat(factor, axis=0).repeat(factor, axis=1) for image in raw]
    return Seen(names, images, net.features(list(raw)), net.stride * factor)


def component_picture(seen: Seen) -> Picture:
    """Principal components of all images together."""
    components = fit_components(seen.maps)
    cells = [component_colours(each, components) for each in seen.maps]
    return _painted(seen, cells)


def cluster_picture(
    seen: Seen, classes: ClassTable, masks: Sequence[NDArray[np.uint8] | None] | None, options: argparse.Namespace
) -> Picture:
    """k-means of all cells on the sphere; clusters are numbered by size.

    Raises:
        ConfigError: names are wanted, but there are no masks.
    """
    count = options.clusters
    targets: list[NDArray[np.uint8]] = []
    if masks is not None:
        targets = [mask for mask in masks if mask is not None]
        shown = {int(value) for mask in targets for value in np.unique(mask)} - {IGNORE_INDEX}
        if len(targets) < len(masks) or not shown:
            raise ConfigError("--named needs masks, which this split lacks; leave it out, or give another split")
        count = max(2, len(shown))
    points = normalize(torch.cat([each.flatten(1).T for each in seen.maps]).float(), dim=1)
    if len(points) < count:
        raise ConfigError(f"--clusters {count}: the images have only {len(points)} cells; give fewer")
    found = closeness(points, fit_centres(points, count, options.seed, restarts=3)).argmax(dim=1)
    order = torch.bincount(found, minlength=count).argsort(descending=True, stable=True)
    parts = torch.split(order.argsort()[found], [each[0].numel() for each in seen.maps])
    ids = [part.view(each.shape[-2:]).numpy() for part, each in zip(parts, seen.maps, strict=True)]
    owners = _owners(ids, targets, seen, count, classes.num_classes) if masks is not None else None
    picture = _painted(seen, [cluster_colours(each, classes.palette, owners) for each in ids])
    if owners is None:
        return picture
    named = [(classes.names[k], classes.palette[k]) for k in sorted(set(owners.tolist()) - {-1})]
    named += [("no class", NOBODY)] if (owners < 0).any() else []
    return stacked([picture, legend([name for name, _ in named], [colour.tolist() for _, colour in named])])


def matches_picture(net: FeaturePredictor, names: Sequence[str], raw: Sequence[Picture], seed: int) -> Picture:
    """Two crops of each image with points that they share; boxes, mirroring and points are drawn by the seed.

    Lines are blue where the features agree no better than those of unequal points do on average, red where they are
    equal.
    """
    pictures = []
    for number, (name, image) in enumerate(zip(names, raw, strict=True)):
        rng, side = np.random.default_rng((seed, number)), max(32, min(VIEW, min(image.shape[:2]) // 32 * 32))
        pictures.append(crops_match(net.features, name, image, rng, POINTS, side, -(-LEAST // side)))
    return grid(pictures, 2)


def neighbours_picture(seen: Seen, seed: int) -> Picture:
    """A row for each of the first four images: a cell of it, and where the others have the like."""
    cells: list[Picture] = []
    for number, each in enumerate(seen.maps[:4]):
        rng = np.random.default_rng((seed, number))
        # not at the border, where the image says least
        row, column = (int(side * rng.uniform(0.25, 0.75)) for side in each.shape[-2:])
        cells += neighbour_row(seen.images, seen.maps, seen.names, seen.stride, (number, row, column))
    return grid(cells, len(seen.images))


def _painted(seen: Seen, cells: Sequence[Picture]) -> Picture:
    painted = [
        np.asarray(on_pixels(each, seen.stride, (image.shape[0], image.shape[1])), dtype=np.uint8)
        for each, image in zip(cells, seen.images, strict=True)
    ]
    return side_by_side(seen.images, painted, seen.names)


def _owners(
    ids: Sequence[NDArray[np.int64]], masks: Sequence[NDArray[np.uint8]], seen: Seen, clusters: int, classes: int
) -> NDArray[np.int64]:
    """(K,) class of each cluster by Hungarian matching of pixels; -1 for none."""
    total = np.zeros((classes, clusters), dtype=np.int64)
    for each, mask, image in zip(ids, masks, seen.images, strict=True):
        factor = image.shape[0] // mask.shape[0]
        spread_out = on_pixels(each, seen.stride // factor, (mask.shape[0], mask.shape[1]))
        found, truth = torch.from_numpy(np.asarray(spread_out)), torch.from_numpy(mask.astype(np.int64))
        total += cluster_counts(found, truth, clusters, classes, IGNORE_INDEX).numpy()
    return match_by_pixels(total)


def _mask(sample: Sample, classes: ClassTable, image: Picture) -> NDArray[np.uint8] | None:
    """The sample's mask at the size of the shrunk image."""
    if sample.mask is None:
        return None
    mask = Image.fromarray(read_mask(sample.mask, classes.num_classes, code=sample.code))
    return np.asarray(mask.resize((image.shape[1], image.shape[0]), Image.Resampling.NEAREST))
