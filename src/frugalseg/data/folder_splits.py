"""Splits of a user's folder: a list, a folder, or a share that is drawn by the names of the images."""

import logging
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from frugalseg.data.base import first_five
from frugalseg.data.folder_files import SPLITS, Files, Layout
from frugalseg.data.folder_tags import Places, plain
from frugalseg.data.lists import read_text_file
from frugalseg.errors import DatasetError, DatasetNotFoundError

log = logging.getLogger(__name__)

ALL, TAGGED, MASKED = "all", "tagged", "masked"
"""Splits that every folder has: all images, those with at least one tag, those with a mask."""
_HALVES = ("train", "val")


def choose(
    layout: Layout,
    files: Files,
    places: Places,
    tags: Sequence[tuple[int, ...] | None],
    split: str,
    val_share: float = 0.2,
    seed: int = 0,
) -> list[int]:
    """Images of a split; the log says where they come from.

    Args:
        layout: where the parts of the folder are.
        files: the images.
        places: of the images.
        tags: of every image.
        split: a list `ROOT/splits/<split>.txt` wins; where only one of train and val has a list, the other is the rest.
            Then `all`, `tagged`, `masked`; then a folder below that of the images (of train and val, both must be
            there); then train and val are a share.
        val_share: part of the images that val gets where nothing says which.
        seed: of that draw.

    Returns:
        Places of the images: in the list's order, else in the order of names.

    Raises:
        DatasetNotFoundError: no such split.
        DatasetError: it is empty, or its list names what is not there.
    """
    count = len(files.names)
    if (listed := layout.root / SPLITS / f"{split}.txt").is_file():
        found, whence = read_split(listed, places), str(listed)
    elif split in (ALL, TAGGED, MASKED):
        wanted = {ALL: [True] * count, TAGGED: list(map(bool, tags)), MASKED: [m is not None for m in files.masks]}
        found, whence = [place for place in range(count) if wanted[split][place]], "the folder"
    elif split in _HALVES:
        found, whence = _half(layout, files, places, split, val_share, seed)
    else:
        found, whence = _in_folder(files, split), f"{layout.images}/{split}"
        if not found:
            raise DatasetNotFoundError(
                f"{listed}: no such list, nor a folder {whence} with images; splits that need neither are train, val,"
                f" {ALL}, {TAGGED} and {MASKED}"
            )
    if not found:
        raise DatasetError(f"split {split} of {layout.root}: is empty; {_mend(split, listed)}")
    log.info("%s: %d of %d images from %s", split, len(found), count, whence)
    return found


def _half(
    layout: Layout, files: Files, places: Places, split: str, val_share: float, seed: int
) -> tuple[list[int], str]:
    """Train or val where it has no list."""
    other = layout.root / SPLITS / f"{_HALVES[split == 'train']}.txt"
    if other.is_file():
        taken = set(read_split(other, places))
        return [place for place in range(len(files.names)) if place not in taken], f"what {other} leaves"
    if all(_in_folder(files, half) for half in _HALVES):
        return _in_folder(files, split), f"{layout.images}/{split}"
    is_val = [draw(name, seed) < val_share for name in files.ids]
    found = [place for place, chosen in enumerate(is_val) if chosen == (split == "val")]
    share = val_share if split == "val" else 1 - val_share
    return found, (
        f"a share of {share:g} that is drawn by their names (data.val_share {val_share:g}, data.split_seed {seed}), as"
        f" there is no {layout.root / SPLITS / split}.txt"
    )


def draw(name: str, seed: int) -> float:
    """A number in 0..1 that hangs on a name alone: images that are added change no other's split.

    Args:
        name: id of the image.
        seed: another one draws anew.
    """
    return int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()) / 2**64


def _in_folder(files: Files, folder: str) -> list[int]:
    start = f"{folder}/"
    return [place for place, name in enumerate(files.names) if name.startswith(start)]


def _mend(split: str, listed: Path) -> str:
    if split == TAGGED:
        return "add tags.csv, with a row for every image: header image,tags"
    if split == MASKED:
        return "add masks, as masks/<path of the image>.png"
    return f"add images or {listed}, or change data.val_share"


def read_split(path: Path, places: Places) -> list[int]:
    """Images of a list.

    Args:
        path: one image a line: its path with or without suffix, or its id.
        places: of the images.

    Raises:
        DatasetError: it is empty, or an image is not there or occurs twice.
    """
    names = [name for line in read_text_file(path).splitlines() if (name := plain(line))]
    found = [place for name in names if (place := places.get(name)) is not None]
    if len(found) < len(names) and (absent := [name for name in names if places.get(name) is None]):
        raise DatasetError(
            f"{path}: {len(absent)} of {len(names)} images are not there, first {first_five(absent)}; restore them or"
            " take them off the list"
        )
    if twice := sorted(name for name, number in zip(names, _times(found), strict=True) if number == 2):
        raise DatasetError(f"{path}: {len(twice)} images occur twice, first {first_five(twice)}; remove the repeats")
    if not found:
        raise DatasetError(f"{path}: the split is empty; fill the list or remove it")
    return found


def _times(places: Sequence[int]) -> list[int]:
    """How often each number has come so far."""
    seen: Counter[int] = Counter()
    times = []
    for place in places:
        seen[place] += 1
        times.append(seen[place])
    return times
