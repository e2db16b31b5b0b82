"""Images too large for one pass or for main memory: a sliding window whose answers are cut, not blended.

Windows overlap, and each pixel is answered by one of them: the overlap's halves belong to the window on their side. So
no sums are kept for pixels that wait for a second answer (for a row of windows over 20,000 columns and 150 classes they
would take 770 MB), and the mask does not depend on the order of windows, on where a run was stopped, or on how pixels
are read. A net that looks no further than half the overlap answers as for the whole image, up to rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from frugalseg.errors import ConfigError
from frugalseg.ops.tiles import Span, spans

Pixels = NDArray[np.uint8]
Answer = Callable[[list[Pixels]], Sequence[Pixels]]
"""Images (h, w, 3) of one size -> their masks (h, w)."""


class Source(Protocol):
    """Where the pixels of an image come from."""

    height: int
    width: int

    def read(self, rows: Span, columns: Span) -> Pixels:
        """(h, w, 3) uint8 RGB of a part."""

    def preview(self, size: tuple[int, int]) -> Pixels:
        """(h, w, 3) uint8 RGB of the whole image at a smaller size (h, w)."""


class ArraySource:
    """An image in main memory.

    Args:
        pixels: (H, W, 3) uint8 RGB.
    """

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def read(self, rows: Span, columns: Span) -> Pixels:
        """A part; the whole image is not copied."""
        return np.ascontiguousarray(self.pixels[rows.begin : rows.end, columns.begin : columns.end])

    def preview(self, size: tuple[int, int]) -> Pixels:
        """The nearest pixels of a smaller grid."""
        return decimated(self.pixels, size)


class Cut(NamedTuple):
    """Rows or columns of one window.

    Attributes:
        window: what the net sees.
        core: what its answer is taken for.
    """

    window: Span
    core: Span


@dataclass(frozen=True)
class Windows:
    """How images are cut.

    Args:
        size: side of a window in pixels.
        overlap: pixels that neighbours share, at least; half of them on each side of a cut.
        align: windows begin at multiples of this, and sides are multiples of it but for the last: the sides that the
            net takes. A `size` that is none is taken up to the next.

    Raises:
        ConfigError: such windows cannot be laid.
    """

    size: int
    overlap: int
    align: int = 1

    def __post_init__(self) -> None:
        if self.size < self.align:
            raise ConfigError(
                f"--window {self.size}: this net takes sides from {self.align} pixels on; take a larger one"
            )
        if not 0 <= self.overlap < self.size:
            raise ConfigError(f"--overlap {self.overlap}: must lie between 0 and --window {self.size}, less than it")
        object.__setattr__(self, "size", -(-self.size // self.align) * self.align)
        if self.size < self.overlap + self.align:
            raise ConfigError(
                f"--overlap {self.overlap}: windows of {self.size} pixels move by multiples of {self.align}, the sides"
                f" of this net; take at most {self.size - self.align}"
            )

    def cuts(self, length: int) -> list[Cut]:
        """Cut one side of an image.

        Args:
            length: in pixels.

        Returns:
            From first to last; the cores share nothing and leave nothing out.
        """
        found = spans(length, self.size, self.overlap, self.align)
        edges = [0, *((left.end + right.begin) // 2 for left, right in pairwise(found)), length]
        return [Cut(span, Span(*core)) for span, core in zip(found, pairwise(edges), strict=True)]

    def count(self, height: int, width: int) -> int:
        """Number of windows of an image."""
        return len(self.cuts(height)) * len(self.cuts(width))


def bands(
    source: Source, answer: Answer, windows: Windows, batch_size: int = 1, first: int = 0
) -> Iterator[tuple[Span, Pixels]]:
    """Segment an image row of windows by row of windows.

    Batches hold neighbours of one row, the same ones wherever a run begins.

    Args:
        source: the image.
        answer: the net.
        windows: how the image is cut.
        batch_size: windows that go through the net together.
        first: rows of windows that are left out, because an earlier run has done them.

    Yields:
        Rows of the image, and their class ids (rows, W) uint8.

    Raises:
        ImageError: a part cannot be read.
    """
    columns = windows.cuts(source.width)
    for row in windows.cuts(source.height)[first:]:
        band = np.empty((row.core.end - row.core.begin, source.width), dtype=np.uint8)
        for group in _batches(columns, batch_size):
            masks = answer([source.read(row.window, column.window) for column in group])
            for column, mask in zip(group, masks, strict=True):
                band[:, column.core.begin : column.core.end] = mask[_inside(row), _inside(column)]
        yield row.core, band


def sliding_mask(source: Source, answer: Answer, windows: Windows, batch_size: int = 1) -> Pixels:
    """Segment an image whose mask fits into memory.

    Args:
        source: as of `bands`.
        answer: as of `bands`.
        windows: as of `bands`.
        batch_size: as of `bands`.

    Returns:
        (H, W) uint8.

    Raises:
        ImageError: a part cannot be read.
    """
    return np.concatenate([band for _, band in bands(source, answer, windows, batch_size)])


def decimated(values: Pixels, size: tuple[int, int]) -> Pixels:
    """The values nearest to the centres of a smaller grid's cells.

    Args:
        values: (H, W, ...), perhaps a file mapped into memory.
        size: (h, w), not larger.

    Returns:
        (h, w, ...).
    """
    rows, columns = (
        np.minimum((np.arange(small) + 0.5) * large / small, large - 1).astype(np.int64)
        for small, large in zip(size, values.shape[:2], strict=True)
    )
    # one row at a time: all columns of the chosen rows of a mapped file would be gigabytes
    return np.stack([np.asarray(values[row])[columns] for row in rows])


def shrunk(height: int, width: int, side: int) -> tuple[int, int]:
    """Size of a preview whose longer side is at most `side` pixels."""
    factor = min(1.0, side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _inside(cut: Cut) -> slice:
    """The core, counted from where its window begins."""
    return slice(cut.core.begin - cut.window.begin, cut.core.end - cut.window.begin)


def _batches(columns: Sequence[Cut], batch_size: int) -> Iterator[list[Cut]]:
    """Neighbours of equal width: the last window may be narrower."""
    group: list[Cut] = []
    for column in columns:
        width = column.window.end - column.window.begin
        if group and (len(group) == batch_size or group[0].window.end - group[0].window.begin != width):
            yield group
            group = []
        group.append(column)
    yield group
