"""What `frugalseg data check folder` sees in one image and its mask."""

from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frugalseg.data.base import Sample
from frugalseg.data.io import image_size, read_image, read_mask
from frugalseg.data.opening import open_image
from frugalseg.errors import ImageError, MaskError

_ORIENTATION = 0x0112
_DEEP = ("I", "F")
"""Starts of Pillow's modes with more than 8 bits; of deep RGB it says no more than RGB."""


class Look(NamedTuple):
    """What there is to say of one sample.

    Attributes:
        broken: why the image cannot be read; "" where it can.
        odd: kinds of `ODD` that the image is of.
        content: digest of its bytes; b"" where it was not looked at.
        wrong: why the mask cannot be used; "" where it can, or there is none.
        pixels: (256,) pixels per class id of the mask; None where it was not read.
    """

    broken: str = ""
    odd: tuple[str, ...] = ()
    content: bytes = b""
    wrong: str = ""
    pixels: NDArray[np.int64] | None = None


ODD = {
    "cmyk": "are CMYK: they become RGB without their colour profile; save them as RGB",
    "deep": "have more than 8 bits a channel, which are cut to 8; save them with 8 bits, scaled as you want them seen",
    "rotated": "are turned by EXIF: they are read as they are stored, and so must their masks be; turn the pixels"
    " first, as exiftran -a or ImageMagick's -auto-orient do",
    "transparent": "have transparent parts, of which the hidden colours are seen; save them without alpha",
    "moving": "have several frames, of which the first is taken; save the one you mean",
    "tiny": "have a side below 32 pixels; recipes pad or enlarge them",
}
"""Kinds of images that are not what they seem, and what to do about them."""


def look_at(num_classes: int, quick: bool, sample: Sample) -> Look:
    """Look at an image and its mask.

    Args:
        num_classes: K, with the background.
        quick: read headers only.
        sample: with or without a mask.
    """
    try:
        size = image_size(sample.image) if quick else read_image(sample.image).shape[:2]
        odd = kinds_of(sample, (size[0], size[1]))
        content = b"" if quick else blake2b(sample.image.read_bytes(), digest_size=16).digest()
    except ImageError as error:
        return Look(broken=str(error).removeprefix(f"{sample.image}: "))
    except OSError as error:
        return Look(broken=error.strerror or str(error))
    if sample.mask is None:
        return Look(odd=odd, content=content)
    try:
        if quick:
            return Look(odd=odd, wrong=_header(sample, (size[0], size[1])))
        ids = read_mask(sample.mask, num_classes, (size[0], size[1]), sample.image, sample.code)
    except (ImageError, MaskError) as error:
        return Look(odd=odd, content=content, wrong=str(error).removeprefix(f"{sample.mask}: "))
    return Look(odd=odd, content=content, pixels=np.bincount(ids.ravel(), minlength=256))


def kinds_of(sample: Sample, size: tuple[int, int]) -> tuple[str, ...]:
    """Kinds of `ODD` that an image is of.

    Args:
        sample: whose image can be read.
        size: (H, W) of it.
    """
    with open_image(sample.image) as image:
        found = {
            "cmyk": image.mode == "CMYK",
            "deep": image.mode.startswith(_DEEP) or _has_deep_colours(sample.image, image),
            "rotated": image.getexif().get(_ORIENTATION, 1) not in (0, 1),
            "transparent": "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"),
            "moving": getattr(image, "n_frames", 1) > 1,
            "tiny": min(size) < 32,
        }
    return tuple(kind for kind, true in found.items() if true)


def _has_deep_colours(path: Path, image: Image.Image) -> bool:
    """Whether a file of colours has more than 8 bits a channel, which Pillow reduces without a word."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[-1:] == b"\x10"  # bits per sample, behind signature, width and height
    bits = getattr(image, "tag_v2", {}).get(258, 8)  # of TIFFs
    return bool(max(bits if isinstance(bits, tuple) else (bits,)) > 8)


def _header(sample: Sample, size: tuple[int, int]) -> str:
    """What a mask's header says against it."""
    if sample.mask is None or (found := image_size(sample.mask)) == size:
        return ""
    return f"is {found[0]}x{found[1]} (HxW), but its image is {size[0]}x{size[1]}"
