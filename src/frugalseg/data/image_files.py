"""Finding the images of a folder: any layout, no labels, a million files in seconds."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from frugalseg.data.base import first_five
from frugalseg.data.lists import read_text_file
from frugalseg.errors import DatasetError, DatasetNotFoundError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""Of images, in lower case; files are compared in lower case too (ImageNet has .JPEG)."""
BENCHMARKS = ("JPEGImages", "train2017", "train2014", "images/training", "leftImg8bit/train")
"""Folders of images that have masks, or the images that one is tested on, beside them."""


class ImageFile(NamedTuple):
    """One file.

    Attributes:
        name: path below the root, with slashes.
        size: bytes; -1 for a link that leads nowhere.
        time: of the last change, nanoseconds.
    """

    name: str
    size: int
    time: int


def find_images(root: str | Path, split: str) -> list[ImageFile]:
    """List the images of a split; opens none.

    Args:
        root: any folder.
        split: a list `ROOT/splits/<split>.txt` of paths below the root, with or without suffix, wins. Else folders
            below the root, joined by `+`, each searched with all that is in it; `.` is the root itself. `train` is the
            root where there is no such folder, unless the root is that of a known benchmark.

    Returns:
        In the list's order, or by name. Hidden files and folders are left out.

    Raises:
        DatasetNotFoundError: the root or a folder is not there.
        DatasetError: no images, or the list is wrong.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetNotFoundError(f"{root}: is not a folder; set data.root to a folder of images")
    listed = root / "splits" / f"{split}.txt"
    if listed.is_file():
        return _listed(root, listed)
    found = {file.name: file for folder in _folders(root, split) for file in _walk(root, folder)}
    if not found:
        kinds = ", ".join(sorted(SUFFIXES))
        raise DatasetError(f"split {split} of {root}: holds no images ({kinds}); set data.root or data.train_split")
    return [found[name] for name in sorted(found)]


def unique_ids(names: Sequence[str]) -> list[str]:
    """Ids of images: the names without suffix; where two files would share one, or an id be a file's name, with it.

    Args:
        names: all different.
    """
    stems = [_stem(name) for name in names]
    count, taken = Counter(stems), set(names)
    ids = (stem if count[stem] == 1 and stem not in taken else name for name, stem in zip(names, stems, strict=True))
    return [printable(name) for name in ids]


def printable(name: str) -> str:
    """A name that can be encoded: bytes of a file's name that are not UTF-8 are spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


def files_digest(files: Iterable[ImageFile], times: bool, *settings: object) -> str:
    """SHA-256 over names and sizes.

    Args:
        files: in their order.
        times: take the times of their last change too: they tell a changed file, but copies differ in them.
        *settings: taken as well.
    """
    hasher = hashlib.sha256(repr(settings).encode())
    for file in files:
        hasher.update(os.fsencode(f"{file.name}\0{file.size}\0{file.time if times else ''}\n"))
    return hasher.hexdigest()


def _stem(name: str) -> str:
    # pathlib takes ten times as long, and there may be a million names
    return os.path.splitext(name)[0]  # noqa: PTH122


def _folders(root: Path, split: str) -> list[str]:
    if split == "train" and not (root / "train").is_dir():
        if known := next((name for name in BENCHMARKS if (root / name).is_dir()), None):
            raise DatasetNotFoundError(
                f"{root}: has no folder train, and beside {known} there may be masks or test images;"
                f" set data.train_split to {known}, or to . for all that is there"
            )
        return ["."]
    folders = [PurePosixPath(part.strip()).as_posix() for part in split.split("+")]
    for folder in folders:
        if not (root / folder).is_dir() or folder.startswith("/") or ".." in folder.split("/"):
            raise DatasetNotFoundError(
                f"{root}/{folder}: no such folder, nor a list {root}/splits/{split}.txt;"
                " set data.train_split to folders below data.root, joined by +, or to . for all of it"
            )
    return folders


def _walk(root: Path, folder: str, deep: bool = True) -> Iterator[ImageFile]:
    """Images in a folder, in no order."""
    left, seen = [folder], set[tuple[int, int]]()
    while left:
        here = left.pop()
        status = (root / here).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue  # a link back up would never end
        seen.add((status.st_dev, status.st_ino))
        prefix = "" if here == "." else f"{here}/"
        folders = []
        with os.scandir(root / here) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(prefix + entry.name)
                elif (file := _image(prefix, entry)) is not None:
                    yield file
        left += sorted(folders, reverse=True) if deep else []


def _image(prefix: str, entry: "os.DirEntry[str]") -> ImageFile | None:
    if entry.name[len(_stem(entry.name)) :].lower() not in SUFFIXES:
        return None
    try:
        status = entry.stat()
    except FileNotFoundError:
        return ImageFile(prefix + entry.name, -1, 0)
    # a pipe would be waited for without end
    return ImageFile(prefix + entry.name, status.st_size, status.st_mtime_ns) if entry.is_file() else None


def _listed(root: Path, listed: Path) -> list[ImageFile]:
    names = [line.strip().replace("\\", "/") for line in read_text_file(listed).splitlines() if line.strip()]
    if wrong := [name for name in names if name.startswith("/") or ".." in name.split("/")]:
        raise DatasetError(f"{listed}: {wrong[0]!r} is no path below {root}; write paths below it, such as train/a.jpg")
    find = _finder(root)
    places = [PurePosixPath(name).as_posix() for name in names]
    found = [find(place) for place in places]
    if missing := [place for place, files in zip(places, found, strict=True) if not files]:
        raise DatasetError(
            f"{listed}: {len(missing)} of {len(names)} images are missing below {root}, first {first_five(missing)};"
            " restore them or take them off the list"
        )
    if double := [place for place, files in zip(places, found, strict=True) if len(files) > 1]:
        raise DatasetError(f"{listed}: {double[0]} is more than one file there; write it with its suffix")
    files = [files[0] for files in found]
    if twice := [file.name for file, count in Counter(files).items() if count > 1]:
        raise DatasetError(f"{listed}: {len(twice)} images occur twice, first {first_five(twice)}; remove the repeats")
    if not files:
        raise DatasetError(f"{listed}: the split is empty; fill the list or remove it")
    return files


def _finder(root: Path) -> Callable[[str], list[ImageFile]]:
    """Looks names up, with or without suffix; each folder is read once."""
    folders: dict[str, dict[str, list[ImageFile]]] = {}

    def read(folder: str) -> dict[str, list[ImageFile]]:
        found = defaultdict[str, list[ImageFile]](list)
        if (root / folder).is_dir():
            files = sorted(_walk(root, folder, deep=False))
            for file in files:
                found[_stem(file.name)].append(file)
            found.update({file.name: [file] for file in files})
        return found

    def find(place: str) -> list[ImageFile]:
        folder = PurePosixPath(place).parent.as_posix()
        if folder not in folders:
            folders[folder] = read(folder)
        return folders[folder].get(place, [])

    return find
