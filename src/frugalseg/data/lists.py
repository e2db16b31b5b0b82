"""Id lists and image-level labels that travel with the package (`lists/PROVENANCE.md` says whence)."""

import gzip
from collections import Counter
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

import numpy as np

from frugalseg.errors import DatasetError

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def packaged() -> Traversable:
    """The folder of packaged lists."""
    return files("frugalseg.data") / "lists"


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
    folder = packaged() / benchmark
    if (plain := folder / f"{split}.txt").is_file():
        return parse_ids(plain.read_text(), plain.name)
    if (packed := folder / f"{split}.txt.gz").is_file():
        return parse_ids(gzip.decompress(packed.read_bytes()).decode(), packed.name)
    raise KeyError(f"{benchmark}/{split}")


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
