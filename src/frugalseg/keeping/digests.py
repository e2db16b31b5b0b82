"""Digests of what a stage starts from: values, files, and folders of results."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def digest_of(content: Any) -> str:
    """SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_digests(root: Path, splits: Iterable[Any]) -> dict[str, str]:
    """Digests of the files that say what a data folder holds: worlds, classes, lists and instances.

    Args:
        root: folder of any benchmark; files that are not there are left out.
        splits: names of splits; the lists of others do not matter.
    """
    wanted = sorted({str(split) for split in splits})
    names = ["world.json", "ImageSets/classes.txt", "objectInfo150.txt"]
    names += [f"{folder}/{split}.txt" for folder in ("ImageSets/Segmentation", "splits") for split in wanted]
    patterns = ["ImageSets/FewShot/*.txt", "lists/*.txt", "annotations/instances_*.json"]
    patterns += [f"{part}/{part}_list/split*.txt" for part in ("train", "val")]
    files = [root / name for name in names] + [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return {path.relative_to(root).as_posix(): file_digest(path) for path in files if path.is_file()}


def folder_digest(folder: Path, pattern: str) -> str:
    """Digest of a folder of results: that of the run which made it, else names, sizes and times of its files.

    Args:
        folder: such as `<stage>/maps`.
        pattern: which files, such as `*.npz`.
    """
    maker = folder.parent / "done.json"
    if maker.is_file():
        return file_digest(maker)
    return digest_of([(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.glob(pattern))])
