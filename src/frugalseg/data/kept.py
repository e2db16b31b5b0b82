"""Decoded images and masks kept on disk, so that each is decoded once (`data.cache`).

Why plain .npy files: CPU milliseconds an image in random order, VOC / Cityscapes (`python -m tests.studies.decoding`,
22 Nov 2026): decoding 1.2 / 50, .npy 0.15 / 0.96, the same mapped 0.24 / 1.1, LMDB 0.06 / 0.66, one mapped file of all
images 0.08 / 0.56, WebDataset 0.6 / 5.4, PNG of level 1 4.3 / 48. Training items of 512 pixels thus come 1.7 (VOC) and
12 times (Cityscapes) as fast (rows `data.cached_over_uncached`), and LMDB would save 6 % more. In return any number of
processes of any nodes can fill plain files at once without a lock or a size set beforehand, a half-filled folder is as
good as a full one, and network disks do. WebDataset's archives are read in order, and a shuffled buffer is not the
seeded permutation that training resumes inside.

Why a file is known by path, size and time, not by its bytes: their SHA-256 takes 0.09 / 1.5 ms, as long as the .npy.
Why an entry is checked by the CRC-32 of its pages' sums: that takes 0.02 / 0.2 ms, which the figures above leave out,
and the CRC-32 of its bytes 0.13 / 1.5.
"""

import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO
from zlib import crc32

import cv2
import numpy as np
import PIL

from frugalseg.data.io import Pixels, write_atomic
from frugalseg.errors import ConfigError, DiskFullError

log = logging.getLogger(__name__)

FORMAT = 2
"""Number of our rules: raise it when `io` makes other pixels or values of a file, or when entries look different."""
_CHECKED, _PAGE = 4, 4096
"""Bytes of the checksum behind the array, and of what is added up for it."""
_DECODERS = f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}"


@dataclass(frozen=True)
class Kept:
    """What has been made of files, one .npy each: workers, ranks and nodes may share the folder.

    A file is known by its path, its size and the time of its last change. What is made of it is written whole or not at
    all by whoever comes first; a damaged entry is made again.

    Nothing is ever removed. The folder grows to a byte for each channel of each pixel of all images and masks that have
    been read (VOC 0.7 MB an image with its mask, Cityscapes 8 MB), by a part of that for each factor of `scaled`, and
    once more when files change or move, or another version of OpenCV, Pillow or `FORMAT` decodes them. It may be
    deleted at any time, whole or in part, also while runs use it.

    Args:
        folder: is made; any number of runs and data sets may use it.
        passing: folder of files that are never kept, as each run writes them anew: pseudo labels.

    Raises:
        ConfigError: it is a file.
    """

    folder: Path
    passing: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a folder that cannot be one, before the first batch."""
        if blocking := next((path for path in (self.folder, *self.folder.parents) if path.is_file()), None):
            raise ConfigError(f"data.cache: {blocking} is a file; name a folder for decoded images, or set it to null")

    def __call__(self, path: Path, kind: str, make: Callable[[], Pixels]) -> Pixels:
        """Give what has been made of a file.

        Args:
            path: the file.
            kind: what is made of it.
            make: makes it; a missing or damaged file is its to report.

        Returns:
            What `make` returns.

        Raises:
            DiskFullError: there is no room to keep it.
            ConfigError: the folder cannot be written.
        """
        place = self.place(path, kind)
        if place is None:
            return make()
        try:
            return read(place)
        except FileNotFoundError:
            pass
        except (ValueError, EOFError, OSError) as error:
            log.warning("%s: damaged (%s), made again from %s", place, " ".join(str(error).split()), path)
        made = make()
        self._write(place, made)
        return made

    def place(self, path: Path, kind: str) -> Path | None:
        """Where what is made of a file lies; None where there is no such file, or nothing is kept of it.

        Args:
            path: the file.
            kind: what is made of it.
        """
        if path.parent == self.passing:
            return None
        try:
            status = path.stat()
        except OSError:
            return None
        # links to data sets are common: the same file by another way is found again
        known = (os.path.realpath(path), status.st_size, status.st_mtime_ns, kind, FORMAT, _DECODERS)
        digest = sha256(repr(known).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:]}.npy"  # folders of hundreds of thousands of files are slow

    def _write(self, place: Path, made: Pixels) -> None:
        try:
            write_atomic(place, lambda stream: write(stream, made), f".{secrets.token_hex(4)}")
        except DiskFullError:
            raise DiskFullError(
                f"{self.folder}: the disk is full; free some space or set data.cache to null, and run the command again"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"data.cache: {self.folder} cannot be written ({error.strerror}); name another folder or set it to null"
            ) from None


def write(stream: BinaryIO, made: Pixels) -> None:
    """Write an array to be kept, and its checksum behind it.

    Args:
        stream: an open file.
        made: uint8.
    """
    np.save(stream, made, allow_pickle=False)
    stream.write(checksum(made))


def read(place: Path) -> Pixels:
    """Read a kept array.

    Args:
        place: the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    with place.open("rb") as stream:
        try:
            array = np.lib.format.read_array(stream, allow_pickle=False)
        except (MemoryError, TokenError) as error:  # of damaged headers, which are parsed as Python
            raise ValueError(str(error)) from None
        if array.dtype != np.uint8 or stream.read(_CHECKED + 1) != checksum(array):
            raise ValueError("not what was written")
    return array


def checksum(array: Pixels) -> bytes:
    """CRC-32 of an array's shape, of the sums of its pages as 64-bit words, and of the bytes that fill no page.

    Args:
        array: uint8.

    Returns:
        4 bytes.
    """
    data = np.ascontiguousarray(array).reshape(-1)
    end = len(data) // _PAGE * _PAGE
    sums = data[:end].view("<u8").reshape(-1, _PAGE // 8).sum(axis=1, dtype="<u8")
    return crc32(data[end:].tobytes(), crc32(sums, crc32(repr(array.shape).encode()))).to_bytes(_CHECKED, "little")
