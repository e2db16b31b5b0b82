"""Colours of masks: the PASCAL VOC palette and painting masks and overlays with it."""

import numpy as np
from numpy.typing import NDArray


def voc_palette() -> NDArray[np.uint8]:
    """The 256 colours of VOC's palette PNGs.

    The bits of a class id are dealt out to R, G and B in turn, highest colour bit first, so that
    neighbouring ids get colours far apart.

    Returns:
        (256, 3) uint8, row = class id; row 255 is the (224, 224, 192) of void pixels.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def colourise(mask: NDArray[np.integer], palette: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Paint class ids.

    Args:
        mask: (H, W) ids in 0..255.
        palette: (256, 3) colours; None for VOC's.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: an id outside 0..255.
    """
    if mask.size and (mask.min() < 0 or mask.max() > 255):
        raise ValueError(f"mask ids must lie in 0..255, found {mask.min()}..{mask.max()}")
    painted: NDArray[np.uint8] = (voc_palette() if palette is None else palette)[mask.astype(np.uint8)]
    return painted


def heat(scores: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Paint scores in [0, 1] from blue over green and yellow to red (values outside are clipped).

    Args:
        scores: (H, W).

    Returns:
        (H, W, 3) uint8.
    """
    ramp = np.array([[0, 0, 96], [0, 96, 224], [0, 200, 160], [240, 220, 40], [224, 24, 24]], dtype=np.float64)
    position = np.clip(np.nan_to_num(scores.astype(np.float64)), 0.0, 1.0) * (len(ramp) - 1)
    channels = [np.interp(position, np.arange(len(ramp)), ramp[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def overlay(image: NDArray[np.uint8], colours: NDArray[np.uint8], opacity: float = 0.5) -> NDArray[np.uint8]:
    """Blend colours over an image; both (H, W, 3) uint8, `opacity` in [0, 1] is the share of the colours."""
    blend = image.astype(np.float32) * (1.0 - opacity) + colours.astype(np.float32) * opacity
    return blend.round().astype(np.uint8)
