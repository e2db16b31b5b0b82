"""From uint8 RGB to normalised float32, by table."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from frugalseg.data import settings
from frugalseg.data.crop import Placement, clear_border

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normaliser:
    """(x / 255 - mean) / std per channel.

    There are 256 possible inputs per channel, so a table gives bit for bit what torchvision's ToTensor and Normalize
    compute, at about a third of their time.

    Args:
        mean: three means on the scale 0..1.
        std: three standard deviations.

    Raises:
        ConfigError: means outside 0..1, deviations of 0 or less, or not three.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        settings.colours(mean, std)
        self.mean, self.std = tuple(mean), tuple(std)
        values = torch.arange(256, dtype=torch.float32).div(255)
        channels = [values.sub(m).div(s) for m, s in zip(torch.tensor(mean), torch.tensor(std), strict=True)]
        self.table: NDArray[np.float32] = torch.stack(channels).numpy()

    def onto_canvas(
        self, image: NDArray[np.uint8], placement: Placement, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Normalise the cut-out part of an image onto a canvas of zeros.

        Args:
            image: (H, W, 3) uint8.
            placement: what to cut and where to put it.
            out: (3, S, S) canvas to write; None makes one.

        Returns:
            (3, S, S) float32, exactly 0 outside the placement's box.
        """
        canvas = np.empty((3, *placement.size), np.float32) if out is None else out
        clear_border(canvas, placement)
        self._write(image[placement.source], canvas[(slice(None), *placement.target)])
        return canvas

    def pair(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalise a whole image and add its horizontal mirror image.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            (2, 3, H, W) float32: the image, its mirror image.
        """
        out = np.empty((2, 3, *image.shape[:2]), np.float32)
        self._write(image, out[0])
        out[1] = out[0, :, :, ::-1]
        return out

    def _write(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        image = np.ascontiguousarray(image)  # OpenCV takes no negative strides, which flips leave behind
        for channel, table in enumerate(self.table):
            looked_up = cv2.LUT(cv2.extractChannel(image, channel), table, out[channel])
            if not np.shares_memory(looked_up, out):  # OpenCV silently allocates when it dislikes a target
                out[channel] = looked_up
