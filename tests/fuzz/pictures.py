"""Images, masks and class maps: valid files of all forms, damaged."""

import io
import zlib
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, PngImagePlugin

from frugalseg.analysis.few_shot import read_counts
from frugalseg.analysis.maps import MAPS, read_maps
from frugalseg.commands.label_inputs import read_image_maps
from frugalseg.data import kept
from frugalseg.data.base import Sample
from frugalseg.data.codes import MaskCode
from frugalseg.data.io import image_size, made_by, read_header, read_image, read_mask, write_mask
from frugalseg.data.tags import read_tags
from frugalseg.errors import DatasetError
from frugalseg.limits import Limits, use
from frugalseg.ops.palette import voc_palette
from tests.fuzz.kind import Kind
from tests.fuzz.mutate import damaged

SIZE = (24, 32)
COLOURS = np.asarray([[0, 0, 0], [128, 0, 0], [0, 128, 0], [255, 255, 255]], np.uint8)


def _saved(pixels: np.ndarray, mode: str, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def images(_folder: Path) -> list[bytes]:
    # what claims more is refused, and the rest takes no time
    use(Limits(max_pixels=4_000_000))
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 400_000, zip=True)
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    moving = {form: io.BytesIO() for form in ("GIF", "PNG", "WEBP", "TIFF")}
    for form, stream in moving.items():
        frames[0].save(stream, form, save_all=True, append_images=frames[1:])
    return [
        *(_saved(pixels, mode, "JPEG") for mode in ("RGB", "L", "CMYK")),
        _saved(pixels, "RGB", "JPEG", progressive=True, quality=40),
        *(_saved(pixels, mode, "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        _saved(pixels, "RGB", "PNG", pnginfo=text, icc_profile=b"\0" * 3000),
        *(_saved(pixels, mode, "TIFF", compression=how) for mode in ("RGB", "CMYK") for how in (None, "tiff_lzw", "tiff_deflate")),
        *(_saved(pixels, "RGB", form) for form in ("WEBP", "BMP", "PPM", "GIF", "JPEG2000", "ICO", "TGA", "PCX", "DDS")),
        *(stream.getvalue() for stream in moving.values()),
    ]  # fmt: skip


def _png(data: bytes, rng: Random) -> bytes:
    """A PNG whose header claims something else, with right checksums: only its meaning is wrong."""
    header = bytearray(data[16:29])
    place = rng.randrange(13)
    header[place : place + rng.choice((1, 4))] = rng.choice(
        (b"\0", b"\xff", b"\x7f\xff\xff\xff", rng.randbytes(1), b"\0\1\x86\xa0")
    )
    header = header[:13]
    extra = rng.choice(
        (
            b"",
            *(
                _chunk(kind, zlib.compress(bytes(rng.choice((10, 10**6)))))
                for kind in (b"zTXt", b"iCCP", b"PLTE", b"tRNS", b"acTL")
            ),
        )
    )
    return data[:12] + b"IHDR" + header + zlib.crc32(b"IHDR" + header).to_bytes(4, "big") + extra + data[33:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    data = b"a\0\0" + data
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _changed(data: bytes, rng: Random) -> bytes:
    return _png(data, rng) if data[1:4] == b"PNG" and rng.random() < 0.4 else damaged(data, rng)


def try_image(seeds: list[bytes], place: Path, rng: Random) -> None:
    path = place / rng.choice(("x.jpg", "x.png", "x"))
    path.write_bytes(_changed(rng.choice(seeds), rng))
    (height, width), scalable = read_header(path)
    factor = rng.choice((1, 1, 2, 8)) if scalable else 1
    pixels = read_image(path, factor)
    assert pixels.dtype == np.uint8 and pixels.shape == (-(-height // factor), -(-width // factor), 3)


CODES = (None, None, MaskCode.of({0: 0, 1: 1, 2: 2, 3: 255}), MaskCode.of({0: 0, 1: 1, 2: 2, 3: 255}, COLOURS, slack=1))


def masks(folder: Path) -> list[bytes]:
    use(Limits(max_pixels=4_000_000))
    ids = np.random.default_rng(0).integers(0, 4, SIZE).astype(np.uint8)
    write_mask(folder / "a.png", ids, voc_palette(), run="0123456789abcdef")
    coloured = COLOURS[ids]
    short = Image.fromarray(ids)
    short.putpalette(COLOURS.tobytes())
    stream = io.BytesIO()
    short.save(stream, "PNG")
    return [
        (folder / "a.png").read_bytes(), stream.getvalue(), _saved(ids, "L", "PNG"), _saved(ids, "L", "TIFF"), _saved(ids, "P", "GIF"),
        _saved(ids, "L", "BMP"), *(_saved(coloured, mode, "PNG") for mode in ("RGB", "RGBA", "P")),
    ]  # fmt: skip


def try_mask(seeds: list[bytes], place: Path, rng: Random) -> None:
    path, code = place / "x.png", rng.choice(CODES)
    path.write_bytes(_changed(rng.choice(seeds), rng))
    made_by(path)
    ids = read_mask(path, 21, rng.choice((None, SIZE)), path, code)
    assert ids.dtype == np.uint8 and ids.ndim == 2
    assert code is not None or ids.shape == image_size(path)
    assert ((ids < 21) | (ids == 255)).all()


def maps(_folder: Path) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    keys = np.asarray([0, 3, 7])
    counts = rng.integers(0, 5, (2, 3, 5)) + np.asarray([0, 0, 0, 9, 9])
    return [
        {"keys": keys, **{name: rng.random((3, *SIZE)).astype(np.float16) for name in MAPS[:3]}},
        {"keys": keys, "logits": rng.random((3, 4, 4)).astype(np.float32)},
        {"seeds": np.asarray([1, 2]), "sums": counts},
        {"ids": np.asarray(["a", "b"]), "labels": np.asarray([[0, 1, 0], [1, 0, 0]], np.uint8)},
        {"ids": np.asarray([1, 2]), "labels": np.zeros((2, 3))},
    ]


def _odd(array: np.ndarray, rng: Random) -> np.ndarray:
    """An array of another type, shape or content."""
    fault = rng.randrange(9)
    if fault == 0:
        with suppress(ValueError):  # text that is no number
            return array.astype(
                rng.choice(("f2", "f8", "i1", "u8", "c8", "?", "S3", "U2", "M8[s]", "V4", "b")), casting="unsafe"
            )
    if fault == 1:
        return array.reshape(rng.choice(((-1,), (1, -1), (*array.shape, 1))))
    if fault == 2:
        return array[..., :0]
    if fault == 3:
        return np.asarray(rng.choice((0, -1, 2**62, np.nan, "a", b"\xff", 1j)))
    if fault == 4:
        return array[: rng.randrange(len(array) + 1)]
    if fault == 5:
        return np.repeat(array, 2, axis=0)
    if fault == 6 and array.dtype.kind == "f":
        return np.where(array > rng.random(), array.dtype.type(rng.choice((np.nan, np.inf, -1.0, 6e4))), array)
    if fault == 7:
        return np.zeros(3, [("a", "f4"), ("b", "i4")])
    return (
        np.broadcast_to(array.dtype.type(rng.choice((0, 1))), (*array.shape[:1], 0, 5)) if fault == 8 else array[::-1]
    )


def try_map(seeds: list[dict[str, np.ndarray]], place: Path, rng: Random) -> None:
    which = rng.randrange(len(seeds))
    arrays = dict(seeds[which])
    if rng.random() < 0.5:
        name = rng.choice(list(arrays))
        arrays[name] = _odd(arrays[name], rng)
    path, stream = place / "x.npz", io.BytesIO()
    np.savez(stream, **arrays) if rng.random() < 0.5 else np.savez_compressed(stream, **arrays)
    data = stream.getvalue()
    path.write_bytes(data if rng.random() < 0.4 else damaged(data, rng))
    if which >= 3:
        tags = read_tags(path, 3, ["a", "b"] if which == 3 else [f"{n:012d}" for n in (1, 2)])
        assert all(isinstance(c, int) and 0 <= c < 3 for row in tags.values() for c in row)
    elif which == 2:
        episodes, sums = read_counts(path)
        assert sums.shape[::2] == (len(episodes), 5) and (sums >= 0).all()
    elif rng.random() < 0.5:
        found = read_maps(path)
        assert found["keys"][0] == 0 and all(np.isfinite(found[name]).all() for name in MAPS if name in found)
    else:
        found = read_image_maps(place, Sample(id="x", image=Path("x.jpg"), mask=None, tags=None), 21, SIZE)
        assert all(found[name].shape == (len(found["keys"]), *SIZE) for name in MAPS if name in found)


def keeps(folder: Path) -> bytes:
    stream = io.BytesIO()
    kept.write(stream, np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))
    return stream.getvalue()


def try_kept(seed: bytes, place: Path, rng: Random) -> None:
    """Kept pixels with a fault are never taken for good: the caller reads the image again."""
    path = place / "x"
    path.write_bytes(damaged(seed, rng))
    try:
        pixels = kept.read(path)
    except (ValueError, EOFError, OSError) as error:
        raise DatasetError(f"damaged: {error!r}") from None
    assert pixels.dtype == np.uint8


KINDS = (
    Kind("images", "decoders of images", 2200, images, try_image),
    Kind("masks", "decoders of masks", 1600, masks, try_mask),
    Kind("maps", "class maps, counts and tags in npz", 1500, maps, try_map),
    Kind("kept", "kept pixels", 300, keeps, try_kept),
)
