"""A dense CRF on cluster maps, as STEGO's published numbers have it (K2; mevt.md d.5)."""

import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from frugalseg.ops.cam import resize
from frugalseg.ops.crf import Kernels, dense_crf, pairwise

log = logging.getLogger(__name__)

KERNELS = Kernels(gaussian_sxy=1.0, gaussian_compat=3.0, bilateral_sxy=67.0, bilateral_srgb=3.0, bilateral_compat=4.0)
"""STEGO's (its `src/crf.py`)."""
ITERATIONS = 10
"""Likewise."""
SHARPNESS = 2.0
"""What closeness is multiplied by before the softmax over clusters.

STEGO takes softmax(2 cos) (`cluster_probe(code, 2)` in its `src/eval_segmentation.py`). Of unit vectors that is
softmax(-|x - c|^2), and this is softmax(2 closeness) whatever the centres are.
"""


def probabilities(close: Tensor, size: tuple[int, int]) -> Tensor:
    """Probability of each cluster at the pixels.

    Args:
        close: (S, K, h, w) of `closeness`, for S sets of centres.
        size: (H, W).

    Returns:
        (S, K, H, W) float32.
    """
    return (SHARPNESS * resize(close.float(), size)).softmax(dim=1)


def colours(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn a normalised image back into grey levels.

    Args:
        image: (3, H, W).
        mean: of its channels, on the scale 0..1.
        std: their deviations.

    Returns:
        (H, W, 3) uint8.
    """
    wanted = image.float() * image.new_tensor(std).view(3, 1, 1).float() + image.new_tensor(mean).view(3, 1, 1).float()
    return (255 * wanted).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def refined(pixels: Tensor, close: Tensor) -> Tensor:
    """Clusters of an image after the CRF; all sets of centres share one lattice.

    Args:
        pixels: (H, W, 3) uint8.
        close: (S, K, h, w) of `closeness`, on the same device.

    Returns:
        (S, H, W) int64.
    """
    shared = pairwise(pixels, KERNELS)
    # one set after the other: side by side their 5 x 27 maps take twice the time of single ones
    found = [
        dense_crf(pixels, each, iterations=ITERATIONS, pairwise=shared).argmax(dim=0)
        for each in probabilities(close, (pixels.shape[0], pixels.shape[1]))
    ]
    return torch.stack(found)


def teller(what: str, total: int, every: float = 15.0) -> Callable[[int], None]:
    """A callback (done) that logs at most one line in `every` seconds.

    Args:
        what: is done.
        total: how many.
        every: seconds.
    """
    began = last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= every:
            last = now
            log.info("%s %d/%d, %.0f s left", what, done, total, (now - began) / max(done, 1) * (total - done))

    return tell
