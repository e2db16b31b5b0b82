"""Id lists and image-level labels that travel with the package (`lists/PROVENANCE.md` says whence)."""

import gzip
import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.base import Pair
from frugalseg.errors import DatasetError, DatasetNotFoundError

log = logging.getLogger(__name__)

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def packaged() -> Traversable:
    """The folder of packaged lists."""
    return files("frugalseg.data") / "lists"


def read_text_file(path: Path) -> str:
    """Contents of a text file that people edit: UTF-8, with or without the byte order mark of Windows' editors.

    Args:
        path: the file; any line ends, `str.splitlines` knows them all.

    Raises:
        DatasetError: another encoding.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        what = "it holds zero bytes, as UTF-16 does" if "\0" in text else None  # which is valid UTF-8
    except UnicodeDecodeError as error:
        what = f"{error.reason}, byte {error.start}"
    if what is not None:
        raise DatasetError(f"{path}: is not UTF-8 text ({what}); save it as UTF-8")
    return text


def parse_ids(text: str, origin: str) -> list[str]:
    """Read the ids of a split list.

    A line is `id`, or a pair such as `/JPEGImages/id.jpg /SegmentationClassAug/id.png`, which is stripped to its id.

    Args:
        text: contents of the list; blank lines are skipped.
        origin: name of the list, for messages.

    Returns:
        The ids in the list's order.

    Raises:
        DatasetError: an id occurs twice: its image would count twice in every score.
    """
    ids = [_id(line.split()[0]) for line in text.splitlines() if line.strip()]
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        raise DatasetError(
            f"{origin}: {len(twice)} ids occur more than once, first {', '.join(twice[:5])}: remove the repeated lines"
        )
    return ids


def _id(token: str) -> str:
    path = PurePosixPath(token.replace("\\", "/"))
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


_PAIR = re.compile(r"(.+?)(?:_instance_color_RGB\.png)?_{1,2}(\d{1,2})")


def parse_pairs(text: str, origin: str) -> list[Pair]:
    """Read a list of (image, class) pairs.

    A line is `id__07` (HSNet, SCCNet), `folder/id_7` (PCFNet) or `id_instance_color_RGB.png_07` (SDM).

    Args:
        text: contents of the list; blank lines are skipped.
        origin: name of the list, for messages.

    Raises:
        DatasetError: a line of another form, or a pair that occurs twice.
    """
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if (match := _PAIR.fullmatch(PurePosixPath(line.strip()).name)) is None:
            raise DatasetError(
                f"{origin}: line {number} is {line.strip()[:80]!r}, not <id>__<class>; mend or remove the line"
            )
        pairs.append(Pair(match[1], int(match[2])))
    if twice := [pair for pair, count in Counter(pairs).items() if count > 1]:
        raise DatasetError(f"{origin}: {len(twice)} pairs occur more than once, first {twice[0]}: remove the repeats")
    return pairs


def split_ids(benchmark: str, split: str, on_disk: Sequence[Path]) -> list[str] | None:
    """Ids of a split: the first list on disk wins, else the packaged one; the log says which.

    Args:
        benchmark: folder under `lists`.
        split: name of the split.
        on_disk: files that would hold the list, best first.

    Returns:
        The ids, or None where neither is there.

    Raises:
        DatasetError: the list on disk is empty or repeats ids.
    """
    for path in on_disk:
        if path.is_file():
            if not (ids := parse_ids(read_text_file(path), str(path))):
                raise DatasetError(f"{path}: the split is empty; remove the file to use the packaged list, or fill it")
            log.info("%s: %d ids from %s", split, len(ids), path)
            return ids
    try:
        ids = read_ids(benchmark, split)
    except KeyError:
        return None
    log.info("%s: %d ids from the packaged list", split, len(ids))
    return ids


def split_pairs(benchmark: str, name: str, on_disk: Sequence[Path]) -> list[Pair]:
    """Pairs of a few-shot list: the first list on disk wins, else the packaged one; the log says which.

    Args:
        benchmark: folder under `lists`.
        name: name of the packaged list without suffix.
        on_disk: files that would hold the list, best first.

    Raises:
        DatasetNotFoundError: neither is there.
        DatasetError: a line is wrong.
    """
    path = next((path for path in on_disk if path.is_file()), None)
    if path is None and (text := read_text(benchmark, name)) is None:
        raise DatasetNotFoundError(f"{on_disk[0] if on_disk else name}: no such list of pairs, nor a packaged {name}")
    pairs = parse_pairs(read_text_file(path), str(path)) if path else parse_pairs(text or "", f"packaged {name}")
    log.info("%s: %d pairs from %s", name, len(pairs), path or "the packaged list")
    return pairs


def packaged_splits(benchmark: str) -> list[str]:
    """Names of the packaged splits of a benchmark, sorted.

    Args:
        benchmark: folder under `lists`, such as "voc12".
    """
    names = (entry.name for entry in (packaged() / benchmark).iterdir())
    return sorted(name.removesuffix(".gz").removesuffix(".txt") for name in names if ".txt" in name)


def read_ids(benchmark: str, split: str) -> list[str]:
    """Read a packaged id list.

    Args:
        benchmark: folder under `lists`, such as "voc12".
        split: name of the list without suffix.

    Returns:
        The ids in the list's order.

    Raises:
        KeyError: the package holds no such list.
    """
    if (text := read_text(benchmark, split)) is None:
        raise KeyError(f"{benchmark}/{split}")
    return parse_ids(text, f"packaged {benchmark}/{split}.txt")


def read_text(benchmark: str, name: str) -> str | None:
    """Contents of a packaged list, `name.txt` or `name.txt.gz`; None where there is none.

    Args:
        benchmark: folder under `lists`.
        name: name of the list without suffix.
    """
    folder = packaged() / benchmark
    if (plain := folder / f"{name}.txt").is_file():
        return plain.read_text(encoding="utf-8")
    if (packed := folder / f"{name}.txt.gz").is_file():
        return gzip.decompress(packed.read_bytes()).decode()
    return None


@cache
def read_labels(benchmark: str) -> dict[str, tuple[int, ...]]:
    """Read the packaged image-level labels.

    Args:
        benchmark: folder under `lists`, such as "voc12".

    Returns:
        id -> 0-based foreground class indices, sorted. Shared between callers: do not change it.
    """
    # importlib.resources promises a readable stream, not a path: packages may be zipped
    with (packaged() / benchmark / f"cls_labels_{benchmark}.npz").open("rb") as stream, np.load(stream) as arrays:
        ids, labels = arrays["ids"], arrays["labels"]
    rows: list[list[int]] = [[] for _ in ids]
    for row, column in zip(*(axis.tolist() for axis in labels.nonzero()), strict=True):
        rows[row].append(column)
    return {name.decode(): tuple(row) for name, row in zip(ids.tolist(), rows, strict=True)}


def read_histograms() -> dict[str, NDArray[np.uint32]]:
    """Read the pixels per class of the 12,031 masks of SegmentationClassAug.

    Returns:
        id -> (22,) uint32: classes 0 to 20, then void.
    """
    with (packaged() / "voc12" / "mask_pixel_hist_voc12aug.npz").open("rb") as stream, np.load(stream) as arrays:
        return {name.decode(): row for name, row in zip(arrays["ids"].tolist(), arrays["hist"], strict=True)}
