"""Reading images and masks, writing masks.

Decoders, CPU milliseconds an image on one core, `python -m tests.studies.decoding` (22 Nov 2026, VOC / 2048x1024 JPEG /
2048x1024 PNG): Pillow 13.0 1.9 / 10 / 66, torchvision 0.29 1.4 / 6.0 / -, OpenCV 5.0 1.3 / 7.3 / 48, simplejpeg 1.9
1.3 / 5.3 / -; all give the same pixels. OpenCV, which is here anyway, therefore decodes the usual three-component JPEGs
and RGB PNGs, and Pillow everything else and whatever OpenCV refuses. libjpeg-turbo's fast DCT and upsampling would save
at most 6 % more and change pixels by up to 80 grey levels.

Whoever changes what is made of a file here raises `kept.FORMAT`.
"""

import errno
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.codes import MaskCode, ids_of_colours
from frugalseg.data.opening import DAMAGE, open_image
from frugalseg.errors import DiskFullError, ImageError, MaskError

Pixels = NDArray[np.uint8]
Keep = Callable[[Path, str, Callable[[], Pixels]], Pixels]
"""Called with a file, what is made of it and how: gives what it has kept of that, or makes it; see `kept.Kept`."""
FACTORS = (1, 2, 4, 8)
"""Parts of its size, as divisors, at which a JPEG can be decoded."""

_END_OF_JPEG = b"\xff\xd9"
_END_OF_PNG, _EIGHT_BITS_RGB = b"IEND\xaeB`\x82", b"\x08\x02"
_READ = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# OpenCV's flags named REDUCED_COLOR say BGR and go with no RGB; those named GRAYSCALE say no more than the factor
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def read_image(path: Path, factor: int = 1, keep: Keep | None = None) -> Pixels:
    """Read an image as it is stored: EXIF rotation is not applied, because masks are in stored orientation.

    Args:
        path: any file that Pillow opens; grey, palette and CMYK images become RGB.
        factor: of `FACTORS`; above 1 only for what `read_header` calls scalable.
        keep: asked first; None reads the file.

    Returns:
        (ceil(H / factor), ceil(W / factor), 3) uint8 RGB, equal to Pillow's `draft` and `convert("RGB")`.

    Raises:
        ImageError: absent, truncated, not an image, of more pixels than `--max-pixels`, or not scalable although a
            factor is asked for.
    """
    if keep is not None:
        return keep(path, "image" if factor == 1 else f"image/{factor}", lambda: read_image(path, factor))
    try:
        data = path.read_bytes()
        with open_image(path, BytesIO(data)) as image:
            if factor > 1 and image.format != "JPEG":
                raise OSError(f"only JPEGs can be decoded at a part of their size, not {image.format}")
            if _is_plain(image, data):
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _READ | _REDUCED[factor])
                if pixels is not None:
                    return cast(Pixels, pixels)
            if factor > 1:
                image.draft(image.mode, (max(1, image.width // factor), max(1, image.height // factor)))
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image; restore it or take its id off the list") from None
    except DAMAGE as error:
        raise ImageError(f"{path}: cannot be decoded ({_reason(error)}); fetch the file again") from None


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether OpenCV gives Pillow's pixels, or none where Pillow refuses."""
    if image.mode != "RGB":
        return False
    if image.format == "JPEG":  # OpenCV fills the rest of a truncated one with grey and only prints a warning
        return data.endswith(_END_OF_JPEG)
    # Pillow says RGB of PNGs with 16 bits too
    plain = image.format == "PNG" and data[24:26] == _EIGHT_BITS_RGB and data.endswith(_END_OF_PNG)
    return plain and not getattr(image, "is_animated", False)


def image_size(path: Path) -> tuple[int, int]:
    """Read (H, W) of an image or mask from its header.

    Raises:
        ImageError: absent or not an image.
    """
    return read_header(path)[0]


def read_header(path: Path) -> tuple[tuple[int, int], bool]:
    """Read (H, W) of an image or mask, and whether it is scalable: a JPEG, which can be decoded at a part of its size.

    Raises:
        ImageError: absent or not an image.
    """
    try:
        with open_image(path) as image:
            return (image.height, image.width), image.format == "JPEG"
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image; restore it or take its id off the list") from None
    except DAMAGE as error:
        raise ImageError(f"{path}: cannot be opened ({_reason(error)}); fetch the file again") from None


def read_mask(
    path: Path,
    num_classes: int,
    size: tuple[int, int] | None = None,
    image: Path | None = None,
    code: MaskCode | None = None,
    keep: Keep | None = None,
) -> Pixels:
    """Read the class ids of a mask.

    Args:
        path: palette (P) or grey (L) file, or a colour file where `code` knows the colours.
        num_classes: K, with the background.
        size: (H, W) that the mask must have; None takes any.
        image: file that `size` belongs to, for the message.
        code: how the file's values become ids; None: they are ids, and 255 is ignored.
        keep: asked first for the file's values; None reads the file.

    Returns:
        (H, W) uint8.

    Raises:
        MaskError: absent, damaged, another mode, another size, or an id outside 0..K-1 and 255.
    """
    raw = _read_values(path, code) if keep is None else keep(path, _kind(code), lambda: _read_values(path, code))
    if size is not None:
        if (
            code is not None
            and raw.shape != size
            and max(abs(a - b) for a, b in zip(raw.shape, size, strict=True)) <= code.slack
        ):
            raw = cast(NDArray[np.uint8], cv2.resize(raw, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT))
        check_size(path, raw.shape[:2], image, size)
    ids = raw if code is None else code.decode(raw, path)
    check_ids(path, ids, num_classes)
    return ids


def _kind(code: MaskCode | None) -> str:
    """What `_read_values` depends on, besides the file."""
    if code is None or code.colours is None:
        return "values"
    return f"values/{crc32(code.colours.tobytes()):08x}"


def _read_values(path: Path, code: MaskCode | None) -> NDArray[np.uint8]:
    """What is stored: one value per pixel, colours replaced by the value that they stand for."""
    try:
        with open_image(path, error=MaskError) as mask:
            if code is not None and code.colours is not None and _holds_colours(mask, code.colours):
                return ids_of_colours(np.asarray(mask.convert("RGB")), code.colours, path)
            check_mode(path, mask.mode)
            return np.asarray(mask)  # no convert(): it would turn palette ids into colours or their luma
    except FileNotFoundError:
        raise MaskError(f"{path}: no such mask; restore it or take its id off the list") from None
    except DAMAGE as error:
        raise MaskError(f"{path}: cannot be decoded ({_reason(error)}); fetch the file again") from None


def _holds_colours(mask: Image.Image, colours: NDArray[np.uint8]) -> bool:
    """Whether the colours say what a pixel is.

    They do in a palette image too whose palette consists of class colours: saved from colours, it may be in any order.
    """
    if mask.mode != "P":
        return mask.mode in ("RGB", "RGBA")
    used = [cast(int, index) for _, index in mask.getcolors() or []]
    palette = np.asarray(mask.getpalette("RGB"), np.uint8).reshape(-1, 3)
    known = {tuple(colour) for colour in colours.tolist()}
    return all(index < len(palette) and tuple(palette[index].tolist()) in known for index in used)


def check_mode(path: Path, mode: str) -> None:
    """Refuse masks that do not hold one 8-bit id per pixel.

    Raises:
        MaskError: mode is neither P nor L.
    """
    if mode not in ("P", "L"):
        kind = "colours" if mode.startswith(("RGB", "CMYK", "YCbCr")) else f"mode {mode}"
        raise MaskError(
            f"{path}: holds {kind} ({mode}), but palette ids (mode P or L, one 8-bit class id per pixel) are expected;"
            " map each colour to its class id and save with frugalseg.data.io.write_mask"
        )


def check_size(path: Path, size: tuple[int, ...], image: Path | None, expected: tuple[int, int]) -> None:
    """Refuse a mask of another size than its image: stretching either would shift every label.

    Raises:
        MaskError: the sizes differ.
    """
    if tuple(size) != tuple(expected):
        of_image = f"its image {image}" if image else "its image"
        raise MaskError(
            f"{path}: is {size[0]}x{size[1]} (HxW), but {of_image} is {expected[0]}x{expected[1]};"
            " take mask and image from the same release"
        )


def check_ids(path: Path, ids: NDArray[np.uint8], num_classes: int) -> None:
    """Refuse ids that no class has.

    Raises:
        MaskError: an id outside 0..num_classes-1 that is not 255.
    """
    wrong = ids[(ids >= num_classes) & (ids != IGNORE_INDEX)]
    if wrong.size:
        found = ", ".join(map(str, np.unique(wrong)[:5]))
        raise MaskError(
            f"{path}: class id {found} in {wrong.size} pixels, but ids run from 0 to {num_classes - 1}, and 255;"
            " is this the mask of another data set?"
        )


MADE_BY = "frugalseg-run"
"""Keyword of the PNG text that names the run."""


def made_by(path: Path) -> str:
    """Digest of the run that wrote a mask, from the file's header; "" where it does not say.

    Raises:
        MaskError: absent or not an image.
    """
    try:
        with open_image(path, error=MaskError) as mask:
            return str(mask.info.get(MADE_BY, ""))
    except FileNotFoundError:
        raise MaskError(f"{path}: no such mask; restore it or take its id off the list") from None
    except DAMAGE as error:
        raise MaskError(f"{path}: cannot be opened ({_reason(error)}); make it again") from None


def write_mask(path: Path, ids: NDArray[np.uint8], palette: NDArray[np.uint8], run: str = "") -> None:
    """Write class ids as a palette PNG, so that the file appears whole or not at all.

    Args:
        path: target; its folder is made.
        ids: (H, W) uint8.
        palette: (256, 3) uint8.
        run: digest of the run that makes it, kept in the header so that a folder mixed from two runs can be told.

    Raises:
        ValueError: `ids` is not a two-dimensional uint8 array.
    """
    if ids.dtype != np.uint8 or ids.ndim != 2:
        raise ValueError(f"ids must be (H, W) uint8, got {ids.shape} {ids.dtype}")
    image = Image.fromarray(ids)
    image.putpalette(palette.tobytes())
    text = PngInfo()
    if run:
        text.add_text(MADE_BY, run)
    write_atomic(path, lambda stream: image.save(stream, format="PNG", pnginfo=text))


def write_atomic(path: Path, writer: Callable[[BinaryIO], object], token: str = "") -> None:
    """Write a file under a temporary name in the same folder, then rename it.

    Args:
        path: target; its folder is made.
        writer: gets the open binary file.
        token: becomes part of the temporary name, to keep apart processes of different nodes, whose ids may be equal.

    Raises:
        DiskFullError: there is no room; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # the process id keeps two ranks apart; tempfile would make the file private to its owner
    temporary = path.with_name(f".{path.name}{token}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            writer(stream)
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"{path}: the disk is full; free some space and run the command again") from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that no longer run had begun to write with `write_atomic`.

    Args:
        folder: looked at itself, not what is below it.
    """
    for leftover in folder.glob(".*.tmp"):
        writer = leftover.name.split(".")[-2]
        if writer.isdecimal() and not _runs(int(writer)):
            leftover.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__
