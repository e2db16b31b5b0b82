"""What `frugalseg segment` is given: images with their ids, tags, supports."""

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from frugalseg.data.base import first_five
from frugalseg.data.folder_tags import IMAGE_COLUMN, read_tag_table
from frugalseg.data.image_files import SUFFIXES, unique_ids
from frugalseg.data.lists import read_text_file
from frugalseg.errors import ConfigError, DatasetError, ImageError
from frugalseg.predictor import windows_raster

KINDS = SUFFIXES | windows_raster.SUFFIXES
"""Suffixes of images, in lower case."""


class Photo(NamedTuple):
    """One image.

    Attributes:
        id: path below its folder without suffix; with it where two files would share one.
        path: the file.
    """

    id: str
    path: Path

    @property
    def is_tiff(self) -> bool:
        """Whether the file is read by parts where rasterio is installed."""
        return self.path.suffix.lower() in windows_raster.SUFFIXES


def find_photos(places: Sequence[Path], out: Path) -> list[Photo]:
    """List images; opens none.

    Args:
        places: images, and folders that are searched with all that is below them; hidden files are left out.
        out: where results go; what lies in it is no image to segment.

    Returns:
        By place, then by name; a file that is named twice occurs once.

    Raises:
        ImageError: a place is not there.
        DatasetError: a folder holds no images, or two images of different folders would have one id.
    """
    found: dict[Path, str] = {}
    for place in places:
        if place.is_dir():
            names = sorted(_names(place, out.resolve()))
            if not names:
                raise DatasetError(f"{place}: holds no images ({', '.join(sorted(KINDS))}); name another folder")
        elif place.is_file():
            names = [place.name]
        else:
            raise ImageError(f"{place}: no such image or folder; mend the path")
        for name in names:
            found.setdefault((place / name if place.is_dir() else place).absolute(), name)
    owner: dict[str, Path] = {}
    for path, name in found.items():
        if (other := owner.setdefault(name, path)) != path:
            raise DatasetError(f"{other} and {path}: would both be {name}; segment them into folders of their own")
    return [Photo(name, path) for name, path in zip(unique_ids([*found.values()]), found, strict=True)]


def _names(folder: Path, out: Path) -> Iterator[str]:
    """Paths below a folder."""
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen or Path(here).resolve() == out:
            folders.clear()  # a link back up would never end
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(here, name)
            if not name.startswith(".") and path.suffix.lower() in KINDS and not path.is_fifo():
                yield path.relative_to(folder).as_posix()


@dataclass(frozen=True)
class TagTable:
    """Tags of images.

    Args:
        every: of every image; None where `rows` has them one by one.
        rows: id, path below its folder or file name of an image -> its tags.
        file: where `rows` are from, for messages.
    """

    every: tuple[str, ...] | None = None
    rows: Mapping[str, tuple[str, ...]] | None = None
    file: str = ""

    def of(self, photo: Photo) -> tuple[str, ...] | None:
        """Tags of one image; None where none were given."""
        if self.rows is None:
            return self.every
        names = (photo.id, photo.id + photo.path.suffix, photo.path.name)
        return next((self.rows[name] for name in names if name in self.rows), None)

    def asked(self, photo: Photo, named: bool) -> list[str | int] | None:
        """Tags of one image as a predictor takes them.

        Args:
            photo: the image.
            named: whether the net knows names; else tags are class ids.

        Raises:
            DatasetError: a tag is no number, and the net knows no names.
        """
        tags = self.of(photo)
        if tags is None or named:
            return None if tags is None else list(tags)
        if strange := [tag for tag in tags if not tag.isdecimal()]:
            raise DatasetError(
                f"{self.file or '--tags'}: the net knows its classes by number, not as {strange[0]!r}; mend it"
            )
        return [int(tag) for tag in tags]

    def check(self, photos: Sequence[Photo], classes: Sequence[str]) -> None:
        """Refuse what cannot be meant before the first image is segmented.

        Args:
            photos: the images.
            classes: names of classes; empty where the net does not know them.

        Raises:
            DatasetError: a class that the net does not have, or images without tags.
        """
        given = [*(self.every or ()), *(tag for tags in (self.rows or {}).values() for tag in tags)]
        if classes and (strange := [tag for tag in dict.fromkeys(given) if tag not in classes]):
            place = self.file or "--tags"
            known = ", ".join(classes)[:300]
            raise DatasetError(f"{place}: {first_five(strange)} is no class of this net ({known}); mend the name")
        if self.rows is not None and (bare := [photo.id for photo in photos if self.of(photo) is None]):
            raise DatasetError(
                f"{self.file}: has no row for {len(bare)} of {len(photos)} images, first {first_five(bare)}; add rows"
                " `id,tag;tag`, with nothing after the comma where there is no class in the image"
            )


def read_tags(given: str | None) -> TagTable | None:
    """Tags from the command line.

    Args:
        given: a file `.csv`, as `frugalseg.data.Folder` has it (a heading `image,tags`, or `image` and all classes), or
            rows `id,tag;tag` without a heading; or names joined by commas, which all images have.

    Raises:
        DatasetError: the file is missing or a row of it is wrong.
    """
    if given is None:
        return None
    if not given.lower().endswith(".csv"):
        return TagTable(every=_split(given.replace(",", ";")))
    path = Path(given)
    if not path.is_file():
        raise DatasetError(f"{path}: no such file of tags; mend the path")
    lines = read_text_file(path).splitlines()
    first = re.split(r"[,;\t]", lines[0])[0].strip().strip('"') if lines else ""
    rows = read_tag_table(path).rows if first.lower() in IMAGE_COLUMN else _bare_rows(path, lines)
    return TagTable(rows=dict(rows), file=str(path))


def _bare_rows(path: Path, lines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Rows of a table without a heading."""
    rows: dict[str, tuple[str, ...]] = {}
    try:
        found = [row for row in csv.reader(lines, strict=True) if any(row)]
    except csv.Error as error:
        raise DatasetError(f"{path}: cannot be read ({error}); write rows `id,tag;tag`") from None
    for number, row in enumerate(found, start=1):
        if len(row) != 2 or row[0].strip() in rows:
            wrong = "occurs twice" if len(row) == 2 else f"has {len(row)} columns"
            raise DatasetError(f"{path}: row {number} ({row[0][:80]}) {wrong}; write one row `id,tag;tag` per image")
        rows[row[0].strip()] = _split(row[1])
    return rows


def _split(text: str) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in text.split(";") if tag.strip())


def read_supports(given: Sequence[str]) -> list[tuple[Path, Path]]:
    """Supports from the command line.

    Args:
        given: words `IMAGE:MASK`.

    Raises:
        ConfigError: a word has no colon.
        ImageError: a file is missing.
    """
    pairs = []
    for word in given:
        image, colon, mask = word.rpartition(":")
        if not colon or not image or not mask:
            raise ConfigError(f"--supports {word}: write IMAGE:MASK, the mask not 0 where the object is")
        for path in (Path(image), Path(mask)):
            if not path.is_file():
                raise ImageError(f"{path}: no such file for --supports; mend the path")
        pairs.append((Path(image), Path(mask)))
    return pairs
