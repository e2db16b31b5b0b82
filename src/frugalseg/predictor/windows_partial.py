"""Class ids of one large image on disk while they are being made, so that hours of work survive a stop."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugalseg.errors import DiskFullError
from frugalseg.predictor.windows import Windows

_SUFFIX, _DIGITS = ".part", 16


class PartialMask:
    """Raw class ids, row after row, in a hidden file beside the mask to come.

    The file's length says how far it is: bands are appended and flushed in order, and a torn one is made again. The
    file's name holds what its content depends on; those of other runs are removed.

    Args:
        path: the mask to come.
        size: (H, W).
        windows: how the image is cut.
        token: SHA-256 of all that the mask depends on.
    """

    def __init__(self, path: Path, size: tuple[int, int], windows: Windows, token: str) -> None:
        self.path = path.with_name(f".{path.name}.{token[:_DIGITS]}{_SUFFIX}")
        self.height, self.width = size
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(f".{_literal(path.name)}.{'[0-9a-f]' * _DIGITS}{_SUFFIX}"):
            if other != self.path:
                other.unlink(missing_ok=True)
        there = self.path.stat().st_size // self.width if self.path.is_file() else 0
        ends = [cut.core.end for cut in windows.cuts(self.height)]
        self.first = sum(end <= there for end in ends)
        """Rows of windows that are there."""
        with self.path.open("ab") as file:
            file.truncate(ends[self.first - 1] * self.width if self.first else 0)

    def append(self, band: NDArray[np.uint8]) -> None:
        """Add the next rows (h, W).

        Raises:
            DiskFullError: there is no room; what was there before stays.
        """
        try:
            with self.path.open("ab") as file:
                file.write(np.ascontiguousarray(band).data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskFullError(
                f"{self.path.parent}: no room for the rows of a mask ({error.strerror}); free some space and run the"
                " command again"
            ) from None

    def ids(self) -> NDArray[np.uint8]:
        """All rows, (H, W), mapped into memory."""
        return np.memmap(self.path, dtype=np.uint8, mode="r", shape=(self.height, self.width))

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


def _literal(name: str) -> str:
    """A name in a pattern of `glob`."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
