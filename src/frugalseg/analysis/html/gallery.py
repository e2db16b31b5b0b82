"""Image, class maps, seed, refined and pseudo labels, prediction and truth of a few images, side by side."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frugalseg.analysis.html.experiments import Experiment
from frugalseg.analysis.html.pictures import Album, Picture, Row, spread_out
from frugalseg.analysis.html.states import StageRun
from frugalseg.analysis.maps import read_maps
from frugalseg.data.opening import open_image
from frugalseg.errors import FrugalsegError, printable
from frugalseg.ops.palette import colourise, heat, overlay
from frugalseg.run import file_digest

IMAGES = 4
"""Of every split."""
SIDE = 320
"""Largest side of a panel in pixels."""
CAPTIONS = {
    "maps": "class maps",
    "crf": "maps + CRF",
    "seed_labels": "seed labels",
    "refined": "refined",
    "pseudo": "pseudo label",
    "masks": "prediction",
    "masks-crf": "prediction + CRF",
}
"""Folder of a stage -> what it holds."""
IMAGE_PLACES = ("JPEGImages/{id}.jpg", "train2014/{id}.jpg", "val2014/{id}.jpg", "images/{id}.jpg")
TRUTH_PLACES = ("SegmentationClass/{id}.png", "SegmentationClassAug/{id}.png")
"""Where benchmarks keep images and masks, below their root."""


class Panel(NamedTuple):
    """One column of the gallery.

    Attributes:
        caption: what it shows.
        folder: that holds one file per image.
        suffix: of these files.
    """

    caption: str
    folder: Path
    suffix: str


def gallery(experiment: Experiment, album: Album) -> list[Row]:
    """One row per image, of the first seed that has got furthest.

    Args:
        experiment: with any state.
        album: takes the pictures.
    """
    rows: list[Row] = []
    places = {(stage.fold or 0, stage.seed) for stage in experiment.stages}
    for split in ("val", "train"):
        by_place = {
            place: _panels(own, split)
            for place in sorted(places)
            if (own := [s for s in experiment.stages if (s.fold or 0, s.seed) == place])
        }
        place = max(by_place, key=lambda each: len(by_place[each]), default=None)
        if place is None or not by_place[place]:
            continue
        # seeds have worlds of their own, in which one name means different images
        roots = list(_data_roots(experiment, [s for s in experiment.stages if (s.fold or 0, s.seed) == place]))
        for name in _chosen(by_place[place]):
            shown = [*_image(roots, name, album), *_panel_pictures(by_place[place], name, roots, album)]
            shown += _truth(roots, name, album)
            if shown:
                rows.append(Row(f"{split}: {printable(name)}", shown))
    return rows


def _panels(stages: Sequence[StageRun], split: str) -> list[Panel]:
    """Columns of one seed in the order of the chain; empty where only maps were made, which score stages draw."""
    found, order = [], list(CAPTIONS)
    for stage in stages:
        base, _, its_split = stage.name.rpartition("-")
        if its_split != split or base.startswith("score") or not stage.done:
            continue
        variant = "-".join(base.split("-")[1:])
        for name, caption in CAPTIONS.items():
            if (stage.path / name).is_dir():
                told = f"{caption} ({variant})" if variant else caption
                found.append(Panel(told, stage.path / name, ".npz" if name == "maps" else ".png"))
    return sorted(found, key=lambda panel: (order.index(panel.folder.name), panel.caption))


def _chosen(panels: Sequence[Panel]) -> list[str]:
    """Ids that most panels have, evenly spaced."""
    each = [{p.stem for p in panel.folder.iterdir() if p.suffix == panel.suffix} for panel in panels]
    common = set.intersection(*each) or max(each, key=len)
    return [path.name for path in spread_out([Path(name) for name in sorted(common)], IMAGES)]


def _data_roots(experiment: Experiment, stages: Sequence[StageRun]) -> Iterator[Path]:
    """Folders of data that stages name, from here and from beside the runs; not those that have changed since."""
    seen = set()
    for stage in stages:
        for name in _named_roots(stage.record):
            for root in (Path(name), experiment.path.parent.parent / name):
                if root not in seen and _unchanged(root, stage.record):
                    yield root
                seen.add(root)


def _unchanged(root: Path, record: dict[str, Any]) -> bool:
    """Whether a folder holds the world that a stage saw; benchmarks do not change."""
    identity = record.get("identity")
    inputs = identity.get("inputs") if isinstance(identity, dict) else None
    digest = inputs.get("world.json") if isinstance(inputs, dict) else None
    world = root / "world.json"
    return digest is None or (world.is_file() and file_digest(world) == digest)


def _named_roots(record: dict[str, Any]) -> Iterator[str]:
    words = record.get("command")
    for word, following in pairwise(words) if isinstance(words, list) else ():
        if word in ("--data.init_args.root", "--root"):
            yield str(following)
    try:
        yield str(record["identity"]["data"]["init_args"]["root"])
    except (KeyError, TypeError):
        return


def _found(roots: Sequence[Path], places: Sequence[str], name: str) -> Path | None:
    return next((p for root in roots for place in places if (p := root / place.format(id=name)).is_file()), None)


def _image(roots: Sequence[Path], name: str, album: Album) -> list[Picture]:
    pixels = _pixels(_found(roots, IMAGE_PLACES, name))
    return [] if pixels is None else [album.paint(pixels, f"{name}-image", "image", f"image {printable(name)}")]


def _truth(roots: Sequence[Path], name: str, album: Album) -> list[Picture]:
    pixels = _pixels(_found(roots, TRUTH_PLACES, name))
    return [] if pixels is None else [album.paint(pixels, f"{name}-truth", "truth", f"true mask of {printable(name)}")]


def _pixels(path: Path | None) -> NDArray[np.uint8] | None:
    """(H, W, 3), scaled down; grey masks are painted in VOC's colours. None where there is no such picture."""
    if path is None:
        return None
    try:
        with open_image(path) as image:
            ids = path.suffix == ".png" and image.mode == "L"
            picture = Image.fromarray(colourise(np.asarray(image))) if ids else image.convert("RGB")
    except Exception:  # damage makes Pillow and zlib raise nearly anything
        return None
    factor = max(1, -(-max(picture.size) // SIDE))
    # whole steps, so that labels keep their colours
    return np.asarray(picture)[::factor, ::factor] if path.suffix == ".png" else np.asarray(picture.reduce(factor))


def _panel_pictures(panels: Sequence[Panel], name: str, roots: Sequence[Path], album: Album) -> Iterator[Picture]:
    for panel in panels:
        path = panel.folder / f"{name}{panel.suffix}"
        if not path.is_file():
            continue
        maps = panel.suffix == ".npz"
        pixels = _map_pixels(path, _found(roots, IMAGE_PLACES, name), album) if maps else _pixels(path)
        if pixels is not None:
            stem = f"{name}-{re.sub(r'[^a-z]+', '-', panel.caption)}"
            yield album.paint(pixels, stem, panel.caption, f"{panel.caption} of {printable(name)}")
        elif not maps:
            album.flaws.append(f"{printable('/'.join(path.parts[-4:]))} cannot be read as a picture")


def _map_pixels(path: Path, image: Path | None, album: Album) -> NDArray[np.uint8] | None:
    """The strongest class of every pixel as heat, over the image where it is at hand."""
    try:
        arrays = read_maps(path)
    except FrugalsegError:
        album.flaws.append(f"{printable('/'.join(path.parts[-4:]))} cannot be read as class maps")
        return None
    named = [arrays[name] for name in ("mw", "mp") if name in arrays] or [
        array for name, array in arrays.items() if name != "keys"
    ]
    total = np.sum([array[1:].astype(np.float32) for array in named], axis=0)
    if not total.size:
        return None
    strength = (total / np.maximum(total.max(axis=(1, 2), keepdims=True), 1e-6)).max(axis=0)
    factor = max(1, -(-max(strength.shape) // SIDE))
    colours = heat(strength[::factor, ::factor])
    below = _pixels(image)
    return overlay(below, colours) if below is not None and below.shape == colours.shape else colours
