"""Decoded images and masks kept on disk, so that each is decoded once (`data.cache`).

Why plain .npy files: CPU milliseconds an image in random order, VOC / Cityscapes (`python -m tests.studies.decoding`,
22 Nov 2026): decoding 1.2 / 50, .npy 0.15 / 0.96, the same mapped 0.24 / 1.1, LMDB 0.06 / 0.66, one mapped file of all
images 0.08 / 0.56, WebDataset 0.6 / 5.4, PNG of level 1 4.3 / 48. Training items of 512 pixels thus come 1.7 (VOC) and
12 times (Cityscapes) as fast (rows `data.cached_over_uncached`), and LMDB would save 6 % more. In return any number of
processes of any nodes can fill plain files at once without a lock or a size set beforehand, a half-filled folder is as
good as a full one, and network disks do. WebDataset's archives are read in order, and a shuffled buffer is not the
seeded permutation that training resumes inside.

Why a file is known by path, size and time, not by its bytes: their SHA-256 takes 0.09 / 1.5 ms, as long as the .npy.
"""

import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import PIL

from frugalseg.data.io import Pixels, write_atomic
from frugalseg.errors import ConfigError, DiskFullError

log = logging.getLogger(__name__)

_DECODERS = f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}"


@dataclass(frozen=True)
class Kept:
    """What has been made of files, one .npy each: workers, ranks and nodes may share the folder.

    A file is known by its path, its size and the time of its last change. What is made of it is written whole or not at
    all by whoever comes first, and may be deleted at any time; a damaged file is made again.

    Args:
        folder: is made; any number of runs and data sets may use it.

    Raises:
        ConfigError: it is a file.
    """

    folder: Path

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
        """Where what is made of a file lies; None where there is no such file.

        Args:
            path: the file.
            kind: what is made of it.
        """
        try:
            status = path.stat()
        except OSError:
            return None
        # links to data sets are common: the same file by another way is found again
        known = (os.path.realpath(path), status.st_size, status.st_mtime_ns, kind, _DECODERS)
        digest = sha256(repr(known).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:]}.npy"  # folders of hundreds of thousands of files are slow

    def _write(self, place: Path, made: Pixels) -> None:
        try:
            write_atomic(place, lambda stream: np.save(stream, made, allow_pickle=False), f".{secrets.token_hex(4)}")
        except DiskFullError:
            raise DiskFullError(
                f"{self.folder}: the disk is full; free some space or set data.cache to null, and run the command again"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"data.cache: {self.folder} cannot be written ({error.strerror}); name another folder or set it to null"
            ) from None


def read(place: Path) -> Pixels:
    """Read a kept array.

    Args:
        place: the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    with place.open("rb") as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        if array.dtype != np.uint8 or stream.read(1):
            raise ValueError("not what was written")
    return array
