"""Frozen features on disk, in half precision: worked out once, read by every epoch after.

A split is a folder `<split>-<digest>` with `features.npy`, `masks.npy` and `index.json`. It is written as
`<split>-<digest>.part` and renamed when its last image is there, so a folder without the ending is whole. The digest
covers the net, the data and the sizes: features of another net are in another folder.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.errors import ConfigError, DatasetError, DiskFullError

FLUSH_EVERY = 32
"""Images between two moments from which an interrupted run can go on."""
GIB = 1 << 30


def cache_digest(backbone: str, data: str, input_size: int, grid: int) -> str:
    """Name of what a cache holds.

    Args:
        backbone: `FrozenFeatures.digest`.
        data: digest of the images and masks, as the run folder knows it.
        input_size: side of the images.
        grid: side of the masks.
    """
    parts = json.dumps([backbone, data, input_size, grid])
    return hashlib.sha256(parts.encode()).hexdigest()


def cache_bytes(images: int, shape: Sequence[int], grid: int) -> int:
    """Bytes of the features and masks of a split.

    Args:
        images: their number.
        shape: (D, h, w).
        grid: side of the masks.
    """
    return images * (int(np.prod(shape)) * np.dtype(np.float16).itemsize + grid * grid)


def folder_of(root: Path, split: str, digest: str) -> Path:
    """Where a split's finished features are."""
    return root / f"{split}-{digest[:16]}"


class CacheWriter:
    """Fills the features of a split; images that an interrupted run has stored are not asked for again.

    Args:
        root: folder of all caches.
        split: its name.
        ids: of the images, in the order of the rows.
        shape: (D, h, w) of the features of one image.
        grid: side of the masks.
        digest: `cache_digest`.
        limit: largest number of bytes of this split.
        begins: False for a process that fills what another one has begun: it must not take the place of the other's
            files, even where it sees them late.

    Raises:
        ConfigError: the split is larger than the limit, or an id occurs twice.
        DatasetError: nobody has begun.
        DiskFullError: no room.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        ids: Sequence[str],
        shape: Sequence[int],
        grid: int,
        digest: str,
        limit: int,
        begins: bool = True,
    ) -> None:
        size = cache_bytes(len(ids), shape, grid)
        if size > limit:
            raise ConfigError(
                f"features of {len(ids)} images of split {split} take {size} bytes ({size / GIB:.2f} GiB), more than "
                f"the limit of {limit}; raise --limit, or use protocol L, which keeps nothing"
            )
        if len(set(ids)) != len(ids):
            raise ConfigError(f"split {split} names an image twice; its features cannot be kept, use protocol L")
        self.final = folder_of(root, split, digest)
        self.rows = {name: row for row, name in enumerate(ids)}
        self._pending: list[int] = []
        self._index: dict[str, Any] = {"digest": digest, "ids": list(ids), "shape": list(shape), "grid": grid}
        if not self.finished:
            self._open(self.final.with_name(self.final.name + ".part"), begins)

    @property
    def finished(self) -> bool:
        """Whether the split is whole already."""
        return self.final.is_dir() and _read_index(self.final) == self._index

    def _open(self, part: Path, begins: bool) -> None:
        """Continue a part of the same split, or begin a new one."""
        self.part = part
        if not (part / "index.json").is_file() or _read_index(part) != self._index:
            if not begins:
                raise DatasetError(f"{part}: rank 0 has begun it, but it is not to be seen here; run the command again")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            count, grid = len(self.rows), self._index["grid"]
            _reserve(part / "features.npy", np.float16, (count, *self._index["shape"]))
            _reserve(part / "masks.npy", np.uint8, (count, grid, grid))
            _reserve(part / "done.npy", np.uint8, (count,))
            # last, so that a part with an index has all its arrays
            _write_json(part / "index.json", self._index)
        self._features, self._masks, self._done = (
            _Rows(part / f"{name}.npy") for name in ("features", "masks", "done")
        )

    def missing(self) -> list[str]:
        """Ids that are still to be put."""
        if self.finished:
            return []
        done = np.load(self.part / "done.npy")  # other processes may fill the same split
        return [name for name, row in self.rows.items() if not done[row]]

    def put(self, name: str, features: Tensor, mask: Tensor) -> None:
        """Store one image.

        Args:
            name: its id.
            features: (D, h, w).
            mask: (g, g) class ids.

        Raises:
            ConfigError: values that half precision does not hold, or another shape than announced.
            DatasetError: an id of another split.
        """
        if name not in self.rows:
            raise DatasetError(f"image {name} is not in the split whose features are kept; check data.train_split")
        half = features.detach().to("cpu", torch.float16)
        if list(half.shape) != self._index["shape"] or not bool(half.isfinite().all()):
            raise ConfigError(
                f"image {name}: features {tuple(half.shape)} are not {tuple(self._index['shape'])}, or too large for "
                "half precision; use protocol L"
            )
        row = self.rows[name]
        self._features.write(row, half.numpy())
        self._masks.write(row, mask.to("cpu", torch.uint8).numpy())
        self._pending.append(row)
        if len(self._pending) >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Bring what was put to disk, and only then note that it is there."""
        self._features.flush()
        self._masks.flush()
        for row in self._pending:
            self._done.write(row, np.ones((), np.uint8))
        self._done.flush()
        self._pending.clear()

    def finish(self) -> None:
        """Make the split visible.

        Raises:
            DatasetError: images are missing.
        """
        if self.finished:
            return
        self.flush()
        if missing := self.missing():
            raise DatasetError(f"{self.part}: {len(missing)} images lack features, first {missing[0]}; run again")
        for rows in (self._features, self._masks, self._done):
            rows.close()
        shutil.rmtree(self.final, ignore_errors=True)
        self.part.replace(self.final)
        # last: whoever is stopped before finds the part as it was
        (self.final / "done.npy").unlink(missing_ok=True)


class _Rows:
    """Rows of an array on disk, written in place, perhaps by several machines.

    Not through a memory map: that writes whole pages, with what this machine believes to be in the neighbours' rows.

    Args:
        path: .npy of the array.
    """

    def __init__(self, path: Path) -> None:
        array = np.load(path, mmap_mode="r")
        self._dtype, self._shape, self._begin = array.dtype, array.shape[1:], array.offset
        self._size = array[:1].nbytes
        self._file = path.open("r+b")

    def write(self, row: int, values: NDArray[Any]) -> None:
        """Write one row."""
        self._file.seek(self._begin + row * self._size)
        self._file.write(np.ascontiguousarray(np.broadcast_to(values, self._shape), self._dtype).tobytes())

    def flush(self) -> None:
        """Bring what was written to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class CachedSplit:
    """Kept features of one split, memory-mapped.

    Args:
        root: folder of all caches.
        split: its name.
        digest: what it must have been made of.

    Raises:
        DatasetError: it is not there or not whole.
    """

    def __init__(self, root: Path, split: str, digest: str) -> None:
        folder = folder_of(root, split, digest)
        if not folder.is_dir() or _read_index(folder).get("digest") != digest:
            raise DatasetError(f"{folder}: no kept features of this backbone, data and size; fill the cache first")
        index = _read_index(folder)
        self.ids: list[str] = index["ids"]
        self._features: NDArray[np.float16] = np.load(folder / "features.npy", mmap_mode="r")
        self._masks: NDArray[np.uint8] = np.load(folder / "masks.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features (n, D, h, w) float16 and masks (n, g, g) uint8 of some images."""
        return torch.from_numpy(self._features[rows]), torch.from_numpy(self._masks[rows])


def _read_index(folder: Path) -> dict[str, Any]:
    """Index of a folder; empty where it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        index = json.loads((folder / "index.json").read_text())
        return index if isinstance(index, dict) else {}
    return {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def _reserve(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Make an array of zeros with its place on disk: writing to a map on a full disk would kill the process."""
    try:
        open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise DiskFullError(
                f"{path}: no room for the features; free some space, or give --out on another disk"
            ) from error
        raise
