"""One pass of an image through the net: whole where memory allows it, else in tiles."""

import logging
import math

import torch
from torch import Tensor

from frugalseg.errors import ConfigError
from frugalseg.ops.tiles import sliding
from frugalseg.stages.deeplab.memory import SPARE, bytes_per_pixel, free_bytes, resident_bytes
from frugalseg.stages.deeplab.model import DeepLabNet

log = logging.getLogger(__name__)

SMALLEST_TILE = 64
"""Below this side (or four cells) tiles see too little to be worth it."""
GIB = 2.0**30


class Passes:
    """Runs a net over images of any size.

    Args:
        net: the net.
        window: side of the sliding window in pixels; None passes images whole.
        overlap: share of a tile's side that neighbours share.
        max_pixels: height x width of the largest image that goes through whole; None for what free memory allows.
    """

    def __init__(
        self,
        net: DeepLabNet,
        window: int | None = None,
        overlap: float = 1 / 3,
        max_pixels: int | None = None,
    ) -> None:
        self.net, self.window, self.overlap, self.max_pixels = net, window, overlap, max_pixels
        self._cost: dict[tuple[int, str], float] = {}
        self._resident = 0
        # of a device that ran out of memory in spite of the estimate
        self._proven_too_large = math.inf

    def __call__(self, image: Tensor, name: str, scale: float = 1.0) -> Tensor:
        """Compute logits.

        Args:
            image: (N, 3, H, W).
            name: of the image, for messages.
            scale: of the image, for messages.

        Returns:
            (N, K, ceil(H / stride), ceil(W / stride)).

        Raises:
            ConfigError: not even the smallest tiles fit into memory.
        """
        side = self._side(image, name, scale)
        while True:
            logits = self._try(image, side)
            if logits is not None:
                return logits
            # outside of the exception's handler, which would keep the failed pass's tensors alive
            if image.is_cuda:
                torch.cuda.empty_cache()
            previous = side or max(image.shape[-2:])
            side = self._rounded(previous / 2)
            if side >= previous:
                raise ConfigError(
                    f"{name}: out of memory even in tiles of {previous} pixels; use a smaller net or another device"
                )
            self._proven_too_large = min(self._proven_too_large, previous**2)
            log.warning(
                "%s: %d x %d pixels at scale %g: out of memory, going on in tiles of %d pixels",
                name, *image.shape[-2:], scale, side,
            )  # fmt: skip

    def _try(self, image: Tensor, side: int | None) -> Tensor | None:
        """Logits, or None where memory runs out."""
        try:
            if side is None or side >= max(image.shape[-2:]):
                return self.net(image)  # type: ignore[no-any-return]
            share = round(side * self.overlap)
            # half of what neighbours share is thrown away: cells at a tile's edge lack their surroundings
            return sliding(self.net, image, side, share, self.net.stride, self.net.align, margin=share // 4)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            return None

    def _side(self, image: Tensor, name: str, scale: float) -> int | None:
        """Side of the tiles, None for the whole image."""
        height, width = image.shape[-2:]
        wanted = height * width if self.window is None else min(self.window, height) * min(self.window, width)
        limit, free = self._limit(image)
        if wanted <= limit:
            return None if self.window is None else max(self.window, self._rounded(self.window))
        side = self._rounded(math.sqrt(limit))
        log.warning(
            "%s: %d x %d pixels at scale %g need about %.2f GiB, %.2f GiB are free and %d pixels go through at a time;"
            " going on in tiles of %d pixels",
            name, height, width, scale, wanted * self._cost_of(image) / GIB, free / GIB, limit, side,
        )  # fmt: skip
        return side

    def _limit(self, image: Tensor) -> tuple[float, float]:
        """Pixels that go through in one pass, and the free memory in bytes."""
        cost = self._cost_of(image) if self.max_pixels is None else 0.0
        free = free_bytes(image.device, self._resident)
        given = free * SPARE / cost if self.max_pixels is None else float(self.max_pixels)
        return min(given, self._proven_too_large / 4), free

    def _cost_of(self, image: Tensor) -> float:
        """Bytes per pixel of a pass over so many images, measured once."""
        key = (len(image), str(image.device))
        if key not in self._cost:
            self._cost[key] = bytes_per_pixel(self.net, len(image), image.device)
            self._resident = self._resident or resident_bytes()
        return self._cost[key]

    def _rounded(self, side: float) -> int:
        """A tile's side: a multiple of the net's grid that is not too small."""
        least = -(-max(SMALLEST_TILE, 4 * self.net.align) // self.net.align) * self.net.align
        return max(least, int(side) // self.net.align * self.net.align)
