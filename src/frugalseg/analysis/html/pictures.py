"""Pictures of a report: copied beside its pages, so that it can be moved, and none of them damaged."""

import io
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frugalseg.analysis.html.experiments import Experiment
from frugalseg.analysis.html.states import StageRun
from frugalseg.data.opening import open_image
from frugalseg.errors import printable
from frugalseg.run import draft

LARGEST = 1600
"""Sides beyond this many pixels are scaled down."""
MOST = 6
"""Pictures of one stage; the folder, which the page links to, may hold more."""
FOLDER = "pictures"


class Picture(NamedTuple):
    """One picture of a page.

    Attributes:
        source: address, relative to the report's top folder.
        alt: what it shows, in words.
        caption: below it.
        width: in pixels.
        height: in pixels.
    """

    source: str
    alt: str
    caption: str
    width: int
    height: int


class Row(NamedTuple):
    """Pictures that belong together, with what they are of."""

    title: str
    pictures: list[Picture]


class Album:
    """Takes the pictures of one experiment's page.

    Args:
        out: top folder of the report.
        slug: the experiment's name in addresses.
    """

    def __init__(self, out: Path, slug: str) -> None:
        self.out, self.slug = out, slug
        self.names: set[str] = set()
        self.flaws: list[str] = []

    def copy(self, path: Path, caption: str, alt: str) -> Picture | None:
        """Copy a file; None, and a flaw, where it is no picture.

        Args:
            path: PNG or JPEG.
            caption: below it.
            alt: what it shows.
        """
        try:
            with open_image(path) as image:
                image.load()
                size, suffix = image.size, ".jpg" if image.format == "JPEG" else ".png"
                small = None if max(size) <= LARGEST and image.format in ("PNG", "JPEG") else _small(image, LARGEST)
        except Exception:  # damage makes Pillow and zlib raise nearly anything
            self.flaws.append(f"{printable('/'.join(path.parts[-4:]))} cannot be read as a picture")
            return None
        if small is not None:
            return self.paint(np.asarray(small), path.stem, caption, alt)
        name = self._name(path.stem, suffix)
        with draft(self.out / name) as temporary:
            shutil.copyfile(path, temporary)
        return Picture(name, alt, caption, *size)

    def paint(self, pixels: NDArray[np.uint8], stem: str, caption: str, alt: str) -> Picture:
        """Write an array.

        Args:
            pixels: (H, W, 3).
            stem: of its file's name.
            caption: below it.
            alt: what it shows.
        """
        name, image, text = self._name(stem, ".png"), Image.fromarray(pixels), io.BytesIO()
        image.save(text, format="PNG")
        with draft(self.out / name) as temporary:
            temporary.write_bytes(text.getvalue())
        return Picture(name, alt, caption, *image.size)

    def _name(self, stem: str, suffix: str) -> str:
        """A name that no other picture has, whatever the file system thinks of case."""
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", stem)[:60].lower()
        number, name = 1, plain
        while name in self.names:
            number += 1
            name = f"{plain}-{number}"
        self.names.add(name)
        return f"{FOLDER}/{self.slug}/{name}{suffix}"


def _small(image: Image.Image, side: int) -> Image.Image:
    copy = image.convert("RGB")
    copy.thumbnail((side, side))
    return copy


def spread_out(items: Sequence[Path], most: int) -> list[Path]:
    """At most so many of a list, evenly spaced; the first is among them."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]


def stage_pictures(experiment: Experiment, album: Album) -> list[Row]:
    """Pictures that stages drew themselves (`pictures/`), of the first fold and seed that have them.

    Args:
        experiment: with any state.
        album: takes them.
    """
    rows = []
    for stage in _firsts(experiment.stages, "pictures"):
        files = sorted((stage.path / "pictures").glob("*.png"))
        latest = {re.sub(r"_step\d+$", "", path.stem): path for path in files}  # later steps replace earlier ones
        found = [
            album.copy(path, printable(path.stem), f"{stage.name}, {stage.place}: {printable(path.stem)}")
            for path in spread_out(list(latest.values()), MOST)
        ]
        if pictures := [picture for picture in found if picture]:
            count = f"{len(pictures)} of {len(files)}, " if len(pictures) < len(files) else ""
            rows.append(Row(f"{stage.name} ({count}{stage.place})", pictures))
    return rows


def confusion_pictures(experiment: Experiment, album: Album) -> list[Row]:
    """Confusion matrices of what comes last in the chain: the segmenter's masks, else labels, else maps.

    Args:
        experiment: with any state.
        album: takes them.
    """
    scored = [stage for stage in experiment.stages if list((stage.path / "figures").glob("confusion_*.png"))]
    if not scored:
        return []
    stage = max(scored, key=lambda each: [name in each.name for name in ("segment", "labels", "val")])
    found = [
        album.copy(path, printable(path.stem), f"{stage.name}, {stage.place}: shares of each true class, in %")
        for path in sorted((stage.path / "figures").glob("confusion_*.png"))[:2]
    ]
    pictures = [picture for picture in found if picture]
    return [Row(f"{stage.name} ({stage.place})", pictures)] if pictures else []


def _firsts(stages: Iterable[StageRun], folder: str) -> list[StageRun]:
    """Of every stage the first run that has a folder."""
    found: dict[str, StageRun] = {}
    for stage in sorted(stages, key=lambda each: (each.fold or 0, each.seed)):
        if stage.name not in found and (stage.path / folder).is_dir():
            found[stage.name] = stage
    return list(found.values())
