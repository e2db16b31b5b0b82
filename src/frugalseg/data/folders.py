"""Finding a data set's folder, and pairing images with masks without asking the disk once per file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from frugalseg.data.base import Sample, first_five
from frugalseg.data.codes import MaskCode
from frugalseg.errors import DatasetError, DatasetNotFoundError

Tags = Mapping[str, tuple[int, ...]]


def locate(root: str | Path, *marks: str, give: str, key: str = "data.root") -> Path:
    """Check that a folder is a data set's root.

    Args:
        root: the folder.
        marks: relative paths, at least one of which a root holds.
        give: what the user should give, for the message.
        key: the setting that names the folder, for the message.

    Returns:
        `root`.

    Raises:
        DatasetNotFoundError: it is not; says whether it is too high or too low, and names the right one nearby.
    """
    root = Path(root)
    if _holds(root, marks):
        return root
    what = f"has no folder {' or '.join(marks)}" if root.exists() else "does not exist"
    mend = f"give {give}"
    for steps, folders in ((-1, [root.resolve().parent]), (-2, [root.resolve().parent.parent]),
                           (1, _children([root])), (2, _children(_children([root])))):  # fmt: skip
        if right := next((folder for folder in folders if _holds(folder, marks)), None):
            distance = f"{abs(steps)} folder{'s' if abs(steps) > 1 else ''} too {'high' if steps > 0 else 'low'}"
            what, mend = f"{what}: {distance}" if root.exists() else what, f"{right} looks right"
            break
    raise DatasetNotFoundError(f"{root}: {what}; set {key}: {mend}")


def _holds(folder: Path, marks: Sequence[str]) -> bool:
    return any((folder / mark).is_dir() for mark in marks)


def _children(folders: Iterable[Path]) -> list[Path]:
    # few, so that a root of a million files by mistake costs no minutes
    entries = (entry for folder in folders if folder.is_dir() for entry in sorted(folder.iterdir())[:200])
    return [entry for entry in entries if entry.is_dir()]


class Listing:
    """Which files there are; each folder is read once, which is 100 times faster than asking for each file."""

    def __init__(self) -> None:
        self._names: dict[Path, set[str]] = {}

    def names(self, folder: Path) -> set[str]:
        """Names in a folder; empty where there is no such folder."""
        if folder not in self._names:
            self._names[folder] = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        return self._names[folder]

    def __contains__(self, path: Path) -> bool:
        """Whether a file is there."""
        return path.name in self.names(path.parent)

    def first(self, paths: Iterable[Path]) -> Path | None:
        """The first of several paths that is there."""
        return next((path for path in paths if path in self), None)


def pair_up(
    ids: Sequence[str],
    images: Callable[[str], Sequence[Path]],
    masks: Callable[[str], Sequence[Path]],
    where: str,
    mend: str,
    code: MaskCode | None = None,
    tags: Tags | None = None,
) -> list[Sample]:
    """Make the samples of a split.

    Args:
        ids: names of the images.
        images: id -> where its image may be; the first that is there is taken.
        masks: id -> where its mask may be; none there is None in its sample.
        where: the split and the folder, for messages.
        mend: how to mend missing images, for messages.
        code: encoding of the masks.
        tags: id -> 0-based foreground classes.

    Returns:
        Samples in the order of `ids`.

    Raises:
        DatasetError: no ids, or images are missing.
    """
    if not ids:
        raise DatasetError(f"{where}: holds no images; {mend}")
    listing, tags = Listing(), tags or {}
    found = {name: listing.first(images(name)) for name in ids}
    if missing := [name for name, path in found.items() if path is None]:
        raise DatasetError(
            f"{where}: {len(missing)} of {len(ids)} images are missing, first {first_five(missing)}"
            f" (expected {images(missing[0])[0]}); {mend}"
        )
    return [
        Sample(name, image, listing.first(masks(name)), tags.get(name), code)
        for name, image in found.items()
        if image is not None
    ]
