"""TIFFs of any size read and written by parts: tiled or in strips, BigTIFF, GeoTIFF. Needs rasterio (extra `rasters`).

Only what is asked for is decoded, and GDAL keeps at most `CACHE` bytes of decoded tiles. Pixels are those that Pillow
gives for the whole file, but for JPEG and CMYK, whose colours the two work out a little differently.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.io import MADE_BY
from frugalseg.errors import ConfigError, DiskFullError, ImageError
from frugalseg.ops.tiles import Span
from frugalseg.predictor.windows import Pixels
from frugalseg.run import draft

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

SUFFIXES = frozenset({".tif", ".tiff"})
"""Of files that are read here, in lower case."""
CACHE = 256 * 2**20
"""Bytes of decoded tiles that GDAL keeps: a row of windows over 100,000 columns, so that none is decoded twice."""
LARGEST_BLOCK = 2**29
"""Bytes of one decoded tile or strip. A file compressed as a single strip has to be decoded whole."""
TILE = 512
"""Side of the tiles of masks."""
_MEND = "fetch the file again, or take it away"

# its lines repeat what the exceptions say
logging.getLogger("rasterio").addHandler(logging.NullHandler())


def available() -> bool:
    """Whether rasterio is installed."""
    return find_spec("rasterio") is not None


def import_rasterio() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import rasterio
    except ImportError as error:
        raise ConfigError(
            f"reading large TIFFs by parts needs rasterio ({error}); install it: pip install 'frugalseg[rasters]'"
        ) from error
    return rasterio


class RasterSource:
    """A TIFF that is read by parts; use it in a `with` block.

    Grey images are repeated over three channels, palettes are applied, and channels after the third (alpha, infrared)
    are left out.

    Args:
        path: the file.

    Raises:
        ImageError: missing, damaged, not of 8 bits, or stored in blocks too large for memory.
        ConfigError: rasterio is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rasterio = import_rasterio()
        if not path.is_file():
            raise ImageError(f"{path}: no such image; restore it or take it off the list")
        self._set = self._open()
        self.height, self.width = self._set.height, self._set.width
        try:
            self._check()
        except BaseException:
            self.close()
            raise
        self._colours = _colour_table(self._set)

    def read(self, rows: Span, columns: Span) -> Pixels:
        """(h, w, 3) uint8 RGB of a part.

        Raises:
            ImageError: it cannot be decoded.
        """
        place = ((rows.begin, rows.end), (columns.begin, columns.end))
        return self._read(f"rows {rows.begin}..{rows.end}, columns {columns.begin}..{columns.end}", window=place)

    def preview(self, size: tuple[int, int]) -> Pixels:
        """(h, w, 3) uint8 RGB of the whole image at a smaller size; overviews are used where the file has some.

        Raises:
            ImageError: it cannot be decoded.
        """
        return self._read("a preview", out_shape=(len(self._bands), *size))

    @property
    def place(self) -> dict[str, Any]:
        """Coordinate system and transform as rasterio's `open` takes them; empty where the file has none."""
        found = {"crs": self._set.crs}
        if not self._set.transform.is_identity:
            found["transform"] = self._set.transform
        return {key: value for key, value in found.items() if value}

    def close(self) -> None:
        """Close the file."""
        self._set.close()

    def __enter__(self) -> "RasterSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _bands(self) -> list[int]:
        return [1, 2, 3] if self._set.count >= 3 else [1]

    def _open(self) -> "DatasetReader":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", self._rasterio.errors.NotGeoreferencedWarning)
                # the driver is named: GDAL would open other formats under this suffix, and some name further files
                return self._rasterio.open(self.path, driver="GTiff")
        except self._rasterio.errors.RasterioError as error:
            raise ImageError(f"{self.path}: not a readable TIFF ({_reason(error)}); {_MEND}") from None

    def _check(self) -> None:
        found, kinds = self._set, sorted(set(self._set.dtypes))
        if kinds != ["uint8"]:
            raise ImageError(f"{self.path}: holds {', '.join(kinds)}, but 8 bits per channel are expected; convert it")
        block = max(height * width for height, width in found.block_shapes) * found.count
        if block > LARGEST_BLOCK and found.compression is not None:
            raise ImageError(
                f"{self.path}: is compressed in blocks of {block / 2**20:.0f} MiB, which can only be decoded whole;"
                " write it again with tiles (gdal_translate -co TILED=YES)"
            )

    def _read(self, what: str, **place: Any) -> Pixels:
        try:
            with self._rasterio.Env(GDAL_CACHEMAX=CACHE):
                found = self._set.read(self._bands, **place)
        except (self._rasterio.errors.RasterioError, OSError) as error:
            raise ImageError(f"{self.path}: {what} cannot be decoded ({_reason(error)}); {_MEND}") from None
        if self._colours is not None:
            return np.asarray(self._colours[found[0]], dtype=np.uint8)
        return np.ascontiguousarray(np.broadcast_to(found, (3, *found.shape[1:])).transpose(1, 2, 0))


def write_raster_mask(
    path: Path, ids: NDArray[np.uint8], palette: NDArray[np.uint8], source: RasterSource, run: str = ""
) -> None:
    """Write class ids as a tiled palette TIFF at its image's place on earth; it appears whole or not at all.

    Args:
        path: target.
        ids: (H, W) uint8, perhaps a file mapped into memory.
        palette: (256, 3) uint8.
        source: the image.
        run: digest of what made it, kept as a tag.

    Raises:
        DiskFullError: what was written is not what can be read back, as GDAL does not always say that a disk is full.
    """
    rasterio = import_rasterio()
    height, width = ids.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8", **source.place}
    profile |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "zlevel": 6}
    profile |= {"photometric": "palette", "bigtiff": "if_safer"}
    with draft(path) as temporary, _quiet(rasterio):
        try:
            with rasterio.open(temporary, "w", **profile) as file:
                file.write_colormap(1, {index: (*map(int, colour), 255) for index, colour in enumerate(palette)})
                file.update_tags(**{MADE_BY: run} if run else {})
                for rows in _rows(height):
                    file.write(ids[rows], 1, window=((rows.start, rows.stop), (0, width)))
            whole = _equal(rasterio, temporary, ids)
        except rasterio.errors.RasterioError:
            whole = False
        if not whole:
            raise DiskFullError(f"{path}: could not be written whole; see that the disk has room and run again")


def made_by(path: Path) -> str:
    """Digest of the run that wrote a mask; "" where it does not say.

    Raises:
        ImageError: it cannot be opened.
    """
    rasterio = import_rasterio()
    try:
        with _quiet(rasterio), rasterio.open(path, driver="GTiff") as file:
            return str(file.tags().get(MADE_BY, ""))
    except rasterio.errors.RasterioError as error:
        raise ImageError(f"{path}: cannot be opened ({_reason(error)}); make it again") from None


@contextmanager
def _quiet(rasterio: Any) -> Iterator[None]:
    """Most images have no place on earth, which is no news; and tiles are not kept twice."""
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def _rows(height: int) -> Iterator[slice]:
    for begin in range(0, height, TILE):
        yield slice(begin, min(begin + TILE, height))


def _equal(rasterio: Any, path: Path, ids: NDArray[np.uint8]) -> bool:
    """Whether a file holds these ids."""
    with rasterio.open(path, driver="GTiff") as file:
        width = ids.shape[1]
        return all(
            np.array_equal(file.read(1, window=((rows.start, rows.stop), (0, width))), ids[rows])
            for rows in _rows(ids.shape[0])
        )


def _colour_table(found: "DatasetReader") -> NDArray[np.uint8] | None:
    """(256, 3) colours of a palette image, or of a grey one whose 0 is white; None of others."""
    if found.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        return np.repeat(np.arange(255, -1, -1, dtype=np.uint8)[:, None], 3, axis=1)
    if found.count != 1 or found.colorinterp[0].name != "palette":
        return None
    table = np.zeros((256, 3), dtype=np.uint8)
    for index, colour in found.colormap(1).items():
        table[index] = colour[:3]
    return table


def _reason(error: BaseException) -> str:
    """The innermost message: rasterio's own only says that there is one."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(getattr(error, "errmsg", "") or error)
    return " ".join(text.split())[:160] or type(error).__name__
