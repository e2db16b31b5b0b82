"""Pictures and masks as bytes of JPEG and PNG files."""

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frugalseg.ops.palette import voc_palette


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """RGB `(H, W, 3)` or grey `(H, W)` as JPEG; subsampled chroma would wash out textures of 5 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


@cache
def _palette_bytes() -> bytes:
    return voc_palette().tobytes()


def encode_png(values: NDArray[np.uint8], *, palette: bool) -> bytes:
    """Ids `(H, W)` as PNG: mode P with VOC's colours, or mode L; or RGB `(H, W, 3)` as it is, without palette."""
    picture = Image.fromarray(values)
    if palette:
        picture.putpalette(_palette_bytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
