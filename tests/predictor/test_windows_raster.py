"""TIFFs read and written by parts are those that Pillow reads whole; damage is said in one line."""

import resource

import numpy as np
import pytest
from PIL import Image

from frugalseg.data.io import read_image, write_mask
from frugalseg.errors import ConfigError, DiskFullError, ImageError
from frugalseg.ops.palette import voc_palette
from frugalseg.ops.tiles import Span
from frugalseg.predictor import windows_raster
from frugalseg.predictor.windows import ArraySource, Windows, decimated, sliding_mask
from frugalseg.predictor.windows_raster import RasterSource, made_by, write_raster_mask
from tests.commands.segmenting import damage_tile

rasterio = pytest.importorskip("rasterio", reason="no rasterio; pip install 'frugalseg[rasters]'")
HEIGHT, WIDTH = 150, 230
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(PIXELS[:15, :23]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.3, 0, 500_000, 0, -0.3, 5_400_000)}
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path, pixels=PIXELS, **profile):
    """(H, W) or (H, W, C) as a TIFF."""
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    colours = profile.pop("colormap", None)
    shape = {"count": planes.shape[0], "height": planes.shape[1], "width": planes.shape[2], "dtype": planes.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as file:
        if colours is not None:
            file.write_colormap(1, colours)
        file.write(planes)
    return path


KINDS = {
    "tiled": (PIXELS, {**TILED, "compress": "deflate", "photometric": "rgb"}),
    "strips": (PIXELS, {"compress": "lzw", "photometric": "rgb"}),
    "plain": (PIXELS, {"photometric": "rgb"}),
    "big": (PIXELS, {**TILED, "bigtiff": "yes", "photometric": "rgb"}),
    "planes": (PIXELS, {**TILED, "interleave": "band", "compress": "deflate", "photometric": "rgb"}),
    "placed": (PIXELS, {**TILED, **PLACE, "photometric": "rgb"}),
    "jpeg": (SMOOTH, {**TILED, "compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"}),
    "alpha": (np.dstack([PIXELS, PIXELS[..., 0]]), {"photometric": "rgb", "alpha": "yes"}),
    "cmyk": (np.dstack([PIXELS, PIXELS[..., 0]]), {"photometric": "cmyk"}),
    "grey": (PIXELS[..., 0], {**TILED, "compress": "lzw"}),
    "inverted": (PIXELS[..., 0], {"photometric": "miniswhite"}),
    "palette": (
        PIXELS[..., 0],
        {"photometric": "palette", "colormap": {k: (*c, 255) for k, c in enumerate(voc_palette().tolist())}},
    ),
}


CLOSE = {"jpeg": 3.0, "cmyk": 1.0}
"""Colours that decoders work out differently, and by how many grey levels on average."""


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_those_of_the_whole_image(kind, tmp_path):
    pixels, profile = KINDS[kind]
    path = write(tmp_path / "a.tif", pixels, **profile)
    whole = read_image(path)
    with RasterSource(path) as source:
        assert (source.height, source.width) == (HEIGHT, WIDTH)
        found = source.read(Span(0, HEIGHT), Span(0, WIDTH))
        if kind in CLOSE:
            assert np.abs(found.astype(int) - whole).mean() < CLOSE[kind]
            whole = found
        np.testing.assert_array_equal(found, whole)
        np.testing.assert_array_equal(source.read(Span(60, 131), Span(7, 200)), whole[60:131, 7:200])
        small = source.preview((30, 46))
        assert small.shape == (30, 46, 3)
        if kind != "jpeg":  # of which GDAL may decode a part of the size
            np.testing.assert_array_equal(small, decimated(whole, (30, 46)))


def test_a_window_read_by_parts_gives_the_mask_of_the_whole_array(tmp_path):
    path, windows = write(tmp_path / "a.tif", **TILED, photometric="rgb"), Windows(48, 10, 4)

    def answer(parts):
        return [np.cumsum(part.sum(axis=2), axis=1).astype(np.uint8) for part in parts]  # which feels every edge

    with RasterSource(path) as source:
        found = sliding_mask(source, answer, windows, 3)
    np.testing.assert_array_equal(found, sliding_mask(ArraySource(PIXELS), answer, windows, 3))
    assert (found != answer([PIXELS])[0]).any()


@pytest.mark.parametrize("kind", ["tiled", "placed"])
def test_masks_lie_where_their_image_lies(kind, tmp_path):
    ids = np.random.default_rng(1).integers(0, 21, (HEIGHT, WIDTH), dtype=np.uint8)
    pixels, profile = KINDS[kind]
    path, target = write(tmp_path / "a.tif", pixels, **profile), tmp_path / "masks" / "a.tif"
    with RasterSource(path) as source:
        write_raster_mask(target, ids, voc_palette(), source, "some run")
    with rasterio.open(target) as mask, rasterio.open(path) as image:
        np.testing.assert_array_equal(mask.read(1), ids)
        assert mask.crs == image.crs and mask.transform == image.transform and mask.block_shapes == [(512, 512)]
    assert made_by(target) == "some run" and [each.name for each in target.parent.iterdir()] == ["a.tif"]
    write_mask(tmp_path / "a.png", ids, voc_palette())
    with Image.open(target) as mask, Image.open(tmp_path / "a.png") as png:
        assert mask.mode == "P" and mask.getpalette() == png.getpalette()
        np.testing.assert_array_equal(np.asarray(mask), np.asarray(png))


def test_no_mask_is_left_where_the_disk_is_full(tmp_path):
    ids = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RasterSource(write(tmp_path / "a.tif")) as source:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            with pytest.raises(DiskFullError, match=r"mask\.tif"):
                write_raster_mask(tmp_path / "mask.tif", ids, voc_palette(), source)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


# ---------------------------------------------------------------------- bad input


def test_a_damaged_tile_is_named(tmp_path):
    path = write(tmp_path / "a.tif", **TILED, compress="deflate", photometric="rgb")
    damage_tile(path, 6)
    with RasterSource(path) as source, pytest.raises(ImageError, match=r"a\.tif: rows \d+\.\.\d+, columns") as caught:
        for top in range(0, HEIGHT, 50):
            source.read(Span(top, min(HEIGHT, top + 50)), Span(0, WIDTH))
    assert "\n" not in str(caught.value) and "previous exception" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", photometric="rgb")
    path.write_bytes(path.read_bytes()[: HEIGHT * WIDTH])
    with RasterSource(path) as source, pytest.raises(ImageError, match="cannot be decoded"):
        source.read(Span(0, HEIGHT), Span(0, WIDTH))


def other_format(path):
    """A list of other files, which GDAL would open under any suffix."""
    path.write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )


BAD = {
    "no such image": lambda path: None,
    "not a readable TIFF": lambda path: path.write_bytes(b"II*\0 and no more"),
    "not a readable TIFF (": other_format,
    "holds uint16": lambda path: write(path, PIXELS.astype(np.uint16)),
    "holds float32": lambda path: write(path, PIXELS[..., 0].astype(np.float32)),
}


@pytest.mark.parametrize("said", BAD)
def test_what_cannot_be_read_by_parts_is_refused(said, tmp_path):
    path = tmp_path / "a.tif"
    BAD[said](path)
    with pytest.raises(ImageError) as caught:
        RasterSource(path)
    assert str(caught.value).startswith(f"{path}: {said}") and "\n" not in str(caught.value)


def test_blocks_that_fill_the_memory_are_refused_where_they_can_only_be_decoded_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(windows_raster, "LARGEST_BLOCK", 64 * 64 * 3 - 1)
    packed = write(tmp_path / "a.tif", **TILED, compress="deflate", photometric="rgb")
    with pytest.raises(ImageError, match=r"a\.tif: is compressed in blocks of 0 MiB.*TILED=YES"):
        RasterSource(packed)
    with RasterSource(write(tmp_path / "plain.tif", **TILED, photometric="rgb")) as source:
        assert source.height == HEIGHT
    monkeypatch.setattr(windows_raster, "LARGEST_BLOCK", 64 * 64 * 3)
    RasterSource(packed).close()


def test_a_file_that_is_no_mask_says_so(tmp_path):
    path = tmp_path / "mask.tif"
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="make it again"):
        made_by(path)


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    with pytest.raises(ConfigError, match=r"pip install 'frugalseg\[rasters\]'"):
        RasterSource(tmp_path / "a.tif")
    monkeypatch.setattr(windows_raster, "find_spec", lambda name: None)
    assert not windows_raster.available()
