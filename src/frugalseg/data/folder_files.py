"""Finding images and masks of a user's folder, and pairing them by path: 100,000 of each in seconds, no file opened."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from frugalseg.data.base import first_five
from frugalseg.data.image_files import SUFFIXES as OF_IMAGES
from frugalseg.data.image_files import printable
from frugalseg.errors import DatasetError, DatasetNotFoundError

SUFFIXES = OF_IMAGES | {".tif", ".tiff"}
"""Of images, in lower case; files are compared in lower case too."""
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
"""Of masks, best first; what loses values (JPEG, WebP) is none."""
IMAGES, MASKS, SPLITS = "images", "masks", "splits"
"""Folders below the root that are looked for where no setting names others."""
TAGS = "tags.csv"
CLASS_FILES = ("classes.csv", "palette.csv", "classes.txt")


@dataclass(frozen=True)
class Layout:
    """Where the parts of a user's folder are.

    Attributes:
        root: the folder.
        images: folder that is searched for images.
        masks: folder that is searched for masks; None where there is none.
        tags: the CSV of image-level labels; None where there is none.
        classes: the file of class names; None where there is none.
    """

    root: Path
    images: Path
    masks: Path | None
    tags: Path | None
    classes: Path | None

    @property
    def prefix(self) -> str:
        """What paths below the root have before those below the folder of images: `images/`, or nothing."""
        return "" if self.images == self.root else f"{self.images.relative_to(self.root).as_posix()}/"

    def files(self) -> list[Path]:
        """The small files that say what the images show."""
        return [path for path in (self.tags, self.classes) if path is not None]


def find_layout(
    root: str | Path,
    image_dir: str | None = None,
    mask_dir: str | None = None,
    tags_file: str | None = None,
    classes_file: str | None = None,
) -> Layout:
    """Find the parts of a user's folder; None of a setting looks for the usual name, "" is for none.

    Args:
        root: the folder.
        image_dir: folder of images below it; None for `images` where it is there, else the root.
        mask_dir: folder of masks below it; None for `masks`.
        tags_file: CSV of image-level labels below it; None for `tags.csv`.
        classes_file: file of class names below it; None for the one of `CLASS_FILES` that is there.

    Raises:
        DatasetNotFoundError: the root, or what a setting names, is not there.
        DatasetError: there are several files of class names.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetNotFoundError(f"{root}: is not a folder; set data.root to a folder of images")
    images = root if image_dir == "" else _named(root, "image_dir", image_dir, IMAGES) or root
    if image_dir and (".." in images.relative_to(root).parts if images.is_relative_to(root) else True):
        raise DatasetNotFoundError(f"{images}: is outside of {root}; set data.image_dir to a folder below data.root")
    there = [name for name in CLASS_FILES if (root / name).is_file()]
    if classes_file is None and len(there) > 1:
        raise DatasetError(
            f"{root}: holds {' and '.join(there)}, of which one names the classes; keep one, or set data.classes_file"
        )
    return Layout(
        root,
        images,
        _named(root, "mask_dir", mask_dir, MASKS),
        _named(root, "tags_file", tags_file, TAGS, folder=False),
        _named(root, "classes_file", classes_file, there[0] if there else CLASS_FILES[0], folder=False),
    )


def _named(root: Path, key: str, given: str | None, usual: str, folder: bool = True) -> Path | None:
    """What a setting names, or the usual place where there is none; None for nothing."""
    if given == "":
        return None
    path = root / (usual if given is None else given)
    if path.is_dir() if folder else path.is_file():
        return path
    if given is None:
        return None
    what = "folder" if folder else "file"
    raise DatasetNotFoundError(f"{path}: no such {what}; mend data.{key}, or leave it out for {root}/{usual}")


@dataclass(frozen=True)
class Files:
    """Images with their masks, by name.

    Attributes:
        names: paths of the images below the folder of images, with slashes, in the order of names.
        ids: one per image.
        masks: path of its mask below the folder of masks; None where it has none.
        alone: masks that belong to no image.
    """

    names: list[str]
    ids: list[str]
    masks: list[str | None]
    alone: list[str]


def find_files(layout: Layout) -> Files:
    """List images and masks; each folder is read once and no file is asked for anything.

    Args:
        layout: where they are.

    Raises:
        DatasetError: no images, two that would share one id or one mask, or masks none of which has an image.
    """
    # where images lie in the root itself, its other folders are none of theirs
    beside = {SPLITS, MASKS} if layout.images == layout.root else set[str]()
    if layout.masks is not None:
        beside.add(_below(layout.masks, layout.images))
    names = names_in(layout.images, SUFFIXES, beside)
    if not names:
        kinds = ", ".join(sorted(SUFFIXES))
        raise DatasetError(f"{layout.images}: holds no images ({kinds}); set data.root, or data.image_dir below it")
    ids = ids_of(names)
    if layout.masks is None:
        return Files(names, ids, [None] * len(names), [])
    found = _by_stem(names_in(layout.masks, frozenset(MASK_SUFFIXES)))
    masks = [found.pop(_stem(name), None) for name in names]
    alone = sorted(found.values())
    if alone and not any(masks):
        raise DatasetError(
            f"{layout.masks}: none of its {len(alone)} masks is named as an image of {layout.images}, first"
            f" {first_five(alone)} beside {first_five(names)}; give each the path of its image, with .png"
        )
    return Files(names, ids, masks, alone)


def _below(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if root in folder.parents else ""


def names_in(folder: Path, suffixes: Collection[str], beside: Collection[str] = ()) -> list[str]:
    """Files of some kinds at any depth, by name; hidden ones are left out, links to folders are followed once.

    Args:
        folder: that is searched.
        suffixes: in lower case, with their dot.
        beside: paths of folders below it that are left out, with slashes.

    Returns:
        Paths below the folder, with slashes.
    """
    found: list[str] = []
    left, links, seen = [""], list[str](), set[tuple[int, int]]()
    while left or links:
        prefix = left.pop() if left else links.pop()  # links last: what they lead to keeps the name of its own folder
        status = (folder / prefix).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue  # a link back up would never end
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(f"{folder}/{prefix}") as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if entry.is_dir():
                    if prefix + name not in beside:
                        (links if entry.is_symlink() else left).append(f"{prefix}{name}/")
                elif os.path.splitext(name)[1].lower() in suffixes and entry.is_file():  # noqa: PTH122 - ten times as fast
                    found.append(prefix + name)
    found.sort()
    return found


def ids_of(names: Sequence[str]) -> list[str]:
    """Ids of images: their paths without suffix, `__` for slashes, so that every file of a run can be called by them.

    Args:
        names: paths below the folder of images.

    Raises:
        DatasetError: two images would share one id.
    """
    ids = [printable(_stem(name).replace("/", "__")) for name in names]
    if len(set(ids)) < len(ids):
        double, count = next((name, n) for name, n in Counter(ids).items() if n > 1)
        same = [name for name, own in zip(names, ids, strict=True) if own == double]
        raise DatasetError(
            f"images {' and '.join(map(printable, same[:2]))} would share the id {double}"
            f"{f' with {count - 2} more' if count > 2 else ''}; rename one, or take it away"
        )
    return ids


def files_digest(layout: Layout) -> str:
    """SHA-256 over names and sizes of images and masks, and over tags and classes: asks the disk for each file's size.

    Args:
        layout: where they are.

    Raises:
        DatasetError: see `find_files`.
    """
    found, hasher = find_files(layout), hashlib.sha256()
    for folder, names in ((layout.images, found.names), (layout.masks, filter(None, found.masks))):
        for name in names:
            hasher.update(f"{printable(name)}\0{_size(f'{folder}/{name}')}\n".encode())
        hasher.update(b"\n")
    for path in layout.files():
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - pathlib takes three times as long
    except FileNotFoundError:
        return -1


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122 - pathlib takes ten times as long


def _by_stem(names: Iterable[str]) -> dict[str, str]:
    """Path without suffix -> path.

    Raises:
        DatasetError: two masks for one image.
    """
    found: dict[str, str] = {}
    for name in names:
        if (other := found.setdefault(_stem(name), name)) != name:
            raise DatasetError(f"masks {printable(other)} and {printable(name)} are of one image; take one away")
    return found
