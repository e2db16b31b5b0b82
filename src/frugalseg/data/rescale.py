"""Images brought to other sizes before they are normalised, as prediction and few-shot evaluation want them."""

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]


def rescaled(image: Bytes, scale: float) -> Bytes:
    """Both sides times a factor, rounded, by Pillow's bicubic; the image itself where the factor is 1.

    Args:
        image: (H, W, 3) uint8.
        scale: above 0.

    Returns:
        (max(1, round(scale * H)), max(1, round(scale * W)), 3) uint8.
    """
    if scale == 1:
        return image
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def longer_side(image: Bytes, mask: Bytes | None, size: int) -> tuple[Bytes, Bytes | None]:
    """An image, and its mask with it, whose longer side becomes `size`: bilinear, and nearest.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) uint8, or None.
        size: in pixels.

    Returns:
        Both at the new size.
    """
    height, width = image.shape[:2]
    factor = size / max(height, width)
    if factor == 1:
        return image, mask
    to = max(1, round(width * factor)), max(1, round(height * factor))
    smaller = cast(Bytes, cv2.resize(image, to, interpolation=cv2.INTER_LINEAR))
    return smaller, mask if mask is None else cast(Bytes, cv2.resize(mask, to, interpolation=cv2.INTER_NEAREST_EXACT))
