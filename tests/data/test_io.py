import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from frugalseg.data.io import image_size, read_image, read_mask, remove_leftovers, write_atomic, write_mask
from frugalseg.errors import ImageError, MaskError
from frugalseg.ops.palette import voc_palette
from tests.conftest import REAL
from tests.data.conftest import picture


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_modes_equal_pillow(tmp_path, mode):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(37, 53, 0)).convert(mode).save(path, quality=90)
    with Image.open(path) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("RGB"))
    found = read_image(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    assert image_size(path) == (37, 53) == found.shape[:2]


@pytest.mark.parametrize("settings", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"quality": 20}])
def test_jpeg_encodings_equal_pillow(tmp_path, settings):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(41, 59, 1)).save(path, **settings)
    with Image.open(path) as image:
        assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))


def test_palette_png_as_image(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture(10, 12, 2)).quantize(16).save(path)
    with Image.open(path) as image:
        assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


PNG_CHUNKS = {
    "none": b"",
    "gamma": chunk(b"gAMA", struct.pack(">I", 100000)),
    "transparent colour": chunk(b"tRNS", struct.pack(">3H", 7, 7, 7)),
    "significant bits": chunk(b"sBIT", b"\5\5\5"),
    "frames": chunk(b"acTL", struct.pack(">2I", 2, 0)),
}


@pytest.mark.parametrize("extra", PNG_CHUNKS)
def test_rgb_pngs_equal_pillow(tmp_path, extra):
    path = tmp_path / "a.png"
    Image.fromarray(picture(23, 31, 5)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:33] + PNG_CHUNKS[extra] + data[33:])  # after the header
    with Image.open(path) as image:
        assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))


def test_pngs_with_sixteen_bits_equal_pillow(tmp_path):
    path, pixels = tmp_path / "a.png", np.random.default_rng(0).integers(0, 1 << 16, (20, 30, 3)).astype(np.uint16)
    assert cv2.imwrite(str(path), pixels)
    with Image.open(path) as image:
        assert image.mode == "RGB"
        assert np.array_equal(read_image(path), np.asarray(image))


def test_damaged_pngs_are_what_pillow_says(tmp_path):
    """OpenCV, which decodes whole ones, must never show more of a damaged file than Pillow does."""
    path, rng = tmp_path / "a.png", np.random.default_rng(0)
    Image.fromarray(picture(16, 20, 6)).save(path)
    whole, refused = path.read_bytes(), 0
    for number in range(150):
        data = bytearray(whole)
        if number % 3:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        else:
            del data[rng.integers(len(data)) :]
        path.write_bytes(data)
        try:
            with Image.open(path) as image:
                expected = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError):
            refused += 1
            with pytest.raises(ImageError):
                read_image(path)
        else:
            assert np.array_equal(read_image(path), expected)
    assert refused > 100


def test_exif_rotation_is_not_applied(tmp_path):
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(picture(20, 44, 3)).save(path, exif=exif)
    assert read_image(path).shape == (20, 44, 3)
    assert image_size(path) == (20, 44)


def test_truncated_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(64, 64, 4)).save(path)
    data = path.read_bytes()
    for keep in (len(data) // 2, len(data) - 2, 10, 0):
        path.write_bytes(data[:keep])
        with pytest.raises(ImageError) as error:
            read_image(path)
        assert one_line(error).startswith(f"{path}: cannot be decoded")


def test_absent_files(tmp_path):
    for function in (read_image, image_size):
        with pytest.raises(ImageError, match="no such image"):
            function(tmp_path / "no.jpg")
    with pytest.raises(MaskError, match="no such mask"):
        read_mask(tmp_path / "no.png", 21)


def test_not_an_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("nothing")
    with pytest.raises(ImageError, match="not an image"):
        image_size(path)
    with pytest.raises(MaskError, match="not an image"):
        read_mask(path, 21)


@pytest.mark.parametrize("mode", ["P", "L"])
def test_mask_ids_survive(tmp_path, mode):
    ids = np.arange(21, dtype=np.uint8).repeat(2).reshape(6, 7)
    ids[0, 0] = 255
    path = tmp_path / "deeper" / "a.png"
    write_mask(path, ids, voc_palette())
    if mode == "L":
        Image.fromarray(ids).save(path)
    with Image.open(path) as image:
        assert image.mode == mode
    assert np.array_equal(read_mask(path, 21, (6, 7)), ids)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


def test_written_colours_are_the_palette(tmp_path):
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "a.png", ids, voc_palette())
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png").convert("RGB")), voc_palette()[ids])


@pytest.mark.parametrize("ids", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8)])
def test_write_mask_refuses_other_arrays(tmp_path, ids):
    with pytest.raises(ValueError, match="uint8"):
        write_mask(tmp_path / "a.png", ids, voc_palette())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "1"])
def test_other_mask_modes_are_refused(tmp_path, mode):
    path = tmp_path / "a.png"
    if mode == "I;16":
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(path)
    else:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).convert(mode).save(path)
    with pytest.raises(MaskError) as error:
        read_mask(path, 21)
    assert str(path) in one_line(error)
    assert "palette ids" in one_line(error)


def test_mask_id_out_of_range(tmp_path):
    ids = np.zeros((5, 5), np.uint8)
    ids[0, :3], ids[1, 0], ids[4] = 21, 77, 255
    write_mask(tmp_path / "a.png", ids, voc_palette())
    with pytest.raises(MaskError) as error:
        read_mask(tmp_path / "a.png", 21)
    assert f"{tmp_path / 'a.png'}: class id 21, 77 in 4 pixels" in one_line(error)


def test_mask_of_another_size_names_both(tmp_path):
    write_mask(tmp_path / "a.png", np.zeros((5, 6), np.uint8), voc_palette())
    with pytest.raises(MaskError) as error:
        read_mask(tmp_path / "a.png", 21, (6, 5), tmp_path / "a.jpg")
    for part in (tmp_path / "a.png", tmp_path / "a.jpg", "5x6", "6x5"):
        assert str(part) in one_line(error)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def writer(stream):
        stream.write(b"half")
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        write_atomic(path, writer)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.real
def test_real_images_equal_pillow(real_voc: Path):
    paths = sorted((real_voc / "JPEGImages").glob("*.jpg"))
    assert len(paths) >= 100
    for path in paths:
        with Image.open(path) as image:
            assert np.array_equal(read_image(path), np.asarray(image.convert("RGB"))), path


@pytest.mark.real
def test_real_pngs_equal_pillow():
    paths = sorted((REAL / "iSAID_patches").rglob("*.png")) + sorted((REAL / "cityscapes/leftImg8bit").rglob("*.png"))
    if not paths:
        pytest.skip(f"no genuine PNGs at {REAL}; set FRUGALSEG_REAL_DATA")
    rgb = 0
    for path in paths:
        with Image.open(path) as image:
            rgb += image.mode == "RGB"
            assert np.array_equal(read_image(path), np.asarray(image.convert("RGB"))), path
    assert rgb >= 20


def test_leftovers_of_dead_processes_are_removed_and_no_others(tmp_path):
    alive, dead, other = (tmp_path / name for name in (f".a.png.{os.getpid()}.tmp", ".a.png.4999999.tmp", ".notes.tmp"))
    for path in (alive, dead, other, tmp_path / "a.png"):
        path.write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, other.name, "a.png"])
    remove_leftovers(tmp_path / "no such folder")
