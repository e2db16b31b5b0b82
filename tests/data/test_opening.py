"""Every image and mask is opened in one place, which looks at the header first."""

import ast
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from frugalseg import limits
from frugalseg.cli import main
from frugalseg.data.io import image_size, made_by, read_header, read_image, read_mask
from frugalseg.data.opening import FORMATS, open_image
from frugalseg.errors import ImageError, MaskError
from frugalseg.miniature.voc import write_voc_world
from tests.conftest import REPOSITORY
from tests.test_architecture import tree_of

SOURCE = REPOSITORY / "src/frugalseg"
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest resets our own filter
MAY_OPEN = {"data/opening.py", "data/io.py"}
"""`io.py` has OpenCV decode what `open_image` has let pass."""


@pytest.fixture
def at_most():
    """Set the limit of this process."""
    before = limits.now()
    yield lambda pixels: limits.use(limits.Limits(max_pixels=pixels))
    limits.use(before)


def bomb(path, width, height, mode=b"\x08\x02"):
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">II", width, height) + mode + b"\0\0\0"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return path


READERS = {
    "image": (read_image, ImageError), "size": (image_size, ImageError), "header": (read_header, ImageError),
    "mask": (lambda path: read_mask(path, 21), MaskError), "run": (made_by, MaskError),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("side", [100_000, 22_361, 2**31 - 1])
def test_bombs(tmp_path, reader, side):
    """22,361 squared is just beyond the limit, where Pillow would warn and go on."""
    path = bomb(tmp_path / "x.png", side, side)
    read, error = READERS[reader]
    with pytest.raises(error) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "--max-pixels 500000000" in message and "\n" not in message


def test_scenes_pass(tmp_path):
    """20,000 x 20,000, as in DOTA and iSAID."""
    assert image_size(bomb(tmp_path / "x.png", 20_000, 20_000)) == (20_000, 20_000)
    with pytest.raises(ImageError, match="decoded"):
        read_image(tmp_path / "x.png")


def test_the_limit_is_inclusive(tmp_path, at_most):
    Image.new("RGB", (8, 4)).save(tmp_path / "x.png")
    at_most(32)
    assert read_image(tmp_path / "x.png").shape == (4, 8, 3)
    at_most(31)
    with pytest.raises(ImageError, match="has 4x8"):
        read_image(tmp_path / "x.png")
    at_most(3)
    with pytest.raises(ImageError, match="has 32 pixels"):
        read_image(tmp_path / "x.png")


def test_by_the_command_line(tmp_path, capsys):
    """The word reaches the readers of a verb, also in its worker processes; the next command has the default again."""
    root = write_voc_world(tmp_path / "VOC2012", images_train=4, images_val=2, seed=0)
    words = ["data", "check", "voc", "--root", str(root)]
    assert main(words) == 0
    assert main([*words, "--max-pixels", "50"]) == 1
    told = capsys.readouterr()
    assert "--max-pixels 50" in told.out + told.err
    assert main(words) == 0


def test_nobody_else_opens_images():
    """Neither Pillow nor OpenCV nor torchvision decodes a file elsewhere."""
    openers, holders = ("open", "imread", "imdecode", "decode_image", "read_image"), ("Image", "cv2", "io")
    found = [
        (file.relative_to(SOURCE).as_posix(), f"{node.value.id}.{node.attr}")
        for file in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(tree_of(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in openers and getattr(node.value, "id", "") in holders
    ]
    outside = {place for place, _ in found} - MAY_OPEN
    assert ("data/opening.py", "Image.open") in found
    assert {place for place in outside if not place.startswith("miniature/")} == set()


@pytest.mark.parametrize("form", ["EPS", "PDF", "DDS", "PCX", "ICNS", "FLI"])
def test_formats_that_nobody_needs(tmp_path, form):
    """EPS would start Ghostscript."""
    assert form not in FORMATS
    path = tmp_path / "x.png"
    if form in ("EPS", "PDF", "DDS", "PCX", "ICNS"):
        Image.new("RGB", (64, 64)).save(path, form)
    else:
        path.write_bytes(b"\x80\0\0\0\x11\xaf" + bytes(200))
    with pytest.raises(ImageError, match="not an image"):
        read_image(path)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_formats_that_are_read(tmp_path, form):
    if form not in Image.SAVE and form != "DIB":
        pytest.skip(f"this Pillow writes no {form}")
    Image.new("RGB", (16, 12), (10, 200, 30)).save(tmp_path / "x", form)
    assert read_image(tmp_path / "x").shape == (12, 16, 3)


@pytest.mark.parametrize("kind", ["zTXt", "iCCP", "iTXt"])
def test_text_that_unpacks_to_a_lot(tmp_path, kind):
    """Refused or left out, but never unpacked: the process may not grow by it."""
    import resource

    packed = zlib.compressobj(9)
    data = b"".join(packed.compress(bytes(1 << 24)) for _ in range(8)) + packed.flush()
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    plain = stream.getvalue()
    head = {"zTXt": b"a\0\0", "iCCP": b"a\0\0", "iTXt": b"a\0\1\0\0\0"}[kind]
    body = kind.encode() + head + data
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "x.png").write_bytes(plain[:33] + chunk + plain[33:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        assert read_image(tmp_path / "x.png").shape == (8, 8, 3)
    except ImageError as error:
        assert "\n" not in str(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 90_000  # KiB, of 128 MiB
    assert PngImagePlugin.MAX_TEXT_CHUNK < 1 << 24


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_moving_pictures_give_their_first_frame(tmp_path, form):
    first = np.zeros((8, 8, 3), np.uint8)
    frames = [Image.fromarray(first + value) for value in (0, 200, 90)]
    frames[0].save(
        tmp_path / "x", form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
    )
    assert np.array_equal(read_image(tmp_path / "x"), first)


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "LA", "I;16", "F", "1", "P", "L", "I"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = Image.new("L", (6, 5), 100).convert("F" if mode == "F" else "I" if mode == "I" else "L")
    image = (
        image if mode in ("F", "I", "L") else image.convert(mode) if mode != "I;16" else Image.new("I;16", (6, 5), 100)
    )
    image.save(tmp_path / "x.tif", "TIFF")
    pixels = read_image(tmp_path / "x.tif")
    assert pixels.shape == (5, 6, 3) and pixels.dtype == np.uint8


def test_a_header_that_asks_for_all_memory(tmp_path):
    """Found by the fuzzer: a box of a JPEG 2000 that claims to be four exabytes long."""
    path = tmp_path / "x.jp2"
    Image.new("RGB", (8, 8)).save(path, "JPEG2000")
    data = bytearray(path.read_bytes())
    place = data.index(b"jp2h") - 4
    data[place : place + 8] = b"\0\0\0\1jp2h"
    data[place + 8 : place + 8] = b"\x3f" + b"\xff" * 7
    path.write_bytes(data)
    with pytest.raises(ImageError):
        read_header(path)


def test_the_file_is_closed(tmp_path, at_most):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    at_most(60)
    with pytest.raises(ImageError), open_image(tmp_path / "x.png"):
        pass
    (tmp_path / "x.png").unlink()
