"""How the numbers or colours in a mask file become class ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugalseg.batch import IGNORE_INDEX
from frugalseg.errors import MaskError

NEVER = -1
"""Marks values that no mask of the data set holds."""


@dataclass(frozen=True, eq=False)
class MaskCode:
    """The encoding of a benchmark's masks.

    Attributes:
        values: (256,) int16, value in the file -> class id, 255 (ignored) or `NEVER`.
        colours: (n, 3) uint8, RGB that stands for value 0, 1, ...; None where colour files are refused.
        slack: pixels by which a side of a mask may differ from its image's; such a mask is stretched (nearest).
    """

    values: NDArray[np.int16]
    colours: NDArray[np.uint8] | None = None
    slack: int = 0

    @classmethod
    def of(cls, ids: Mapping[int, int], colours: NDArray[np.uint8] | None = None, slack: int = 0) -> "MaskCode":
        """Make a code from {value in the file: class id or 255}; all other values are `NEVER`."""
        values = np.full(256, NEVER, np.int16)
        values[list(ids)] = list(ids.values())
        return cls(values, colours, slack)

    def decode(self, raw: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        """Turn stored values into class ids.

        Args:
            raw: (H, W) uint8.
            path: the file, for the message.

        Returns:
            (H, W) uint8.

        Raises:
            MaskError: a value that the data set does not have.
        """
        ids = self.values[raw]
        if (wrong := ids == NEVER).any():
            found = ", ".join(map(str, np.unique(raw[wrong])[:5]))
            y, x = np.argwhere(wrong)[0]
            raise MaskError(
                f"{path}: value {found} in {int(wrong.sum())} pixels, first at row {y}, column {x}, is no class;"
                " is this the mask of another data set?"
            )
        return ids.astype(np.uint8)


def ids_of_colours(rgb: NDArray[np.uint8], colours: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Replace colours by their number, by exact match.

    Args:
        rgb: (H, W, 3) uint8.
        colours: (n, 3) uint8, n < 255.
        path: the file, for the message.

    Returns:
        (H, W) uint8, row of each pixel's colour in `colours`.

    Raises:
        MaskError: a colour that is not in the table; names the first pixel.
    """
    packed = rgb[..., 0].astype(np.uint32) << 16 | rgb[..., 1].astype(np.uint32) << 8 | rgb[..., 2]
    ids: NDArray[np.uint8] = _table(colours.tobytes())[packed]
    if (unknown := ids == IGNORE_INDEX).any():
        y, x = np.argwhere(unknown)[0]
        raise MaskError(
            f"{path}: colour {tuple(rgb[y, x].tolist())} (RGB) at row {y}, column {x}, of {int(unknown.sum())} such"
            f" pixels, is none of the {len(colours)} class colours; was the file re-saved with loss, or resized?"
        )
    return ids


@cache
def _table(colours: bytes) -> NDArray[np.uint8]:
    # 16 MB per set of colours: one look-up is much faster than a search, and scenes have up to 10^8 pixels
    rows = np.frombuffer(colours, np.uint8).reshape(-1, 3).astype(np.int64)
    table = np.full(1 << 24, IGNORE_INDEX, np.uint8)
    table[rows[:, 0] << 16 | rows[:, 1] << 8 | rows[:, 2]] = np.arange(len(rows))
    return table
