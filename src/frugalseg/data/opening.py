"""The one place where images and masks are opened: their size is read from the header before anything is decoded."""

import re
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image, Jpeg2KImagePlugin, MpoImagePlugin, TgaImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401

from frugalseg import limits
from frugalseg.errors import FrugalsegError, ImageError

with suppress(ImportError):  # Pillow 11.3 has it
    from PIL import AvifImagePlugin  # noqa: F401

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""What images and masks come in. Pillow knows 40 more, which nobody needs here; EPS starts Ghostscript."""

DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, MemoryError, NotImplementedError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What decoding a damaged file raises."""

# between once and twice its limit Pillow only warns; `open_image` refuses there in one line
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_image(path: Path, stream: BinaryIO | None = None, error: type[FrugalsegError] = ImageError) -> Image.Image:
    """Open an image or a mask, which `with` closes; its pixels are decoded later.

    Args:
        path: the file.
        stream: its content where that has been read.
        error: what to raise for too many pixels.

    Raises:
        FrugalsegError: of the kind that was asked for: more pixels than `--max-pixels`.
        OSError: absent, or not an image; of damaged files Pillow raises ValueError and SyntaxError too.
    """
    most = limits.now().max_pixels
    if most != Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most  # guards what opens images itself, such as a library
    try:
        image = Image.open(path if stream is None else stream, formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as bomb:
        found = re.search(r"\d+", str(bomb))
        pixels = f"{int(found[0]):,}" if found else "too many"
        raise error(f"{path}: has {pixels} pixels, {limits.BEYOND.format(most=most)}") from None
    except (OSError, SyntaxError, ValueError):
        raise
    except Exception as damage:  # a header may lead Pillow's readers to nearly anything
        raise OSError(str(damage) or type(damage).__name__) from None
    if reason := limits.too_large(image.height, image.width):
        image.close()
        raise error(f"{path}: {reason}")
    return image
