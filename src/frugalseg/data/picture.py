"""Images that are decoded once their crops are known, and no larger than these need (`scaled` of recipes).

libjpeg can leave out the finest of a JPEG's cosines and so give an image of 1/2, 1/4 or 1/8 of its sides. `scaled`
takes the smallest of these in which every crop of a draw still has the pixels of its view, and moves the crops' edges
to whole pixels of it: by half a block at most, by less than one at the image's lower and right edge.

What changes: pixels, as by another antialiasing filter before the resize, and boxes, by that rounding. What does not:
random numbers, and that boxes, points and masks are those of the pixels. Decoding itself gains little, since the
Huffman codes of all pixels are read all the same: 1/2 takes 0.94 of the time of a whole VOC image and 0.83 of that of a
2048x1024 one, 1/8 takes 0.76 and 0.46 (`python -m tests.studies.decoding`). With the smaller crops to resize, `Views`
of 2 x 64 and 4 x 32 pixels come 1.16 times as fast from VOC, those of 2 x 224 and 8 x 96 1.8 times as fast from
2048x1024 JPEGs (rows `data.scaled_over_whole`). VOC has no pixels to spare for crops of 224: there it does nothing.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.base import Sample
from frugalseg.data.io import FACTORS, Pixels, read_header, read_image

Fits = Callable[[NDArray[np.int64]], bool]
"""Says of (n, 4) boxes with moved edges whether they will do."""


class Picture:
    """One image, of which crops are wanted.

    Args:
        sample: whose image.
        scaled: look at its size alone, and decode it when the crops are known.

    Raises:
        ImageError: absent, truncated or not an image.
    """

    def __init__(self, sample: Sample, scaled: bool = False) -> None:
        self.sample = sample
        self.pixels: Pixels | None = None
        """(H, W, 3) uint8, None before it is decoded at a part of its size."""
        scalable = False
        if scaled:
            self.size, scalable = read_header(sample.image)
        if not scalable:
            self.pixels = read_image(sample.image, keep=sample.keep)
            self.size = self.pixels.shape[0], self.pixels.shape[1]

    def crops(
        self, boxes: NDArray[np.int64], sides: Sequence[int], fits: Fits | None = None
    ) -> tuple[list[Pixels], NDArray[np.int64]]:
        """Cut boxes out.

        Args:
            boxes: (n, 4) rows x0, y0, x1, y1 in image pixels, end exclusive.
            sides: n numbers, sides of the squares that they will be resized to.
            fits: see `coarsest`.

        Returns:
            n (h, w, 3) uint8, views of one array, and the (n, 4) boxes of the image that they show.
        """
        pixels, factor = self.pixels, 1
        if pixels is None:
            factor, boxes = coarsest(boxes, sides, self.size, fits)
            pixels = read_image(self.sample.image, factor, self.sample.keep)
        return [pixels[y0:y1, x0:x1] for x0, y0, x1, y1 in (boxes // factor).tolist()], boxes


def coarsest(
    boxes: NDArray[np.int64], sides: Sequence[int], size: tuple[int, int], fits: Fits | None = None
) -> tuple[int, NDArray[np.int64]]:
    """The largest factor at which no crop has less pixels than its view, and the boxes with edges at its multiples.

    Args:
        boxes: (n, 4) rows x0, y0, x1, y1 in image pixels.
        sides: n numbers, sides of the views.
        size: (H, W) of the image.
        fits: whether boxes with moved edges will do; if not, a smaller factor is taken. None: all do.
    """
    least = np.asarray(sides)[:, None]
    for factor in sorted(FACTORS, reverse=True):
        # the last pixel of a scaled image may show less than a whole block
        last = np.array([size[1], size[0]] * 2) // factor * factor
        rounded = np.minimum((2 * boxes + factor) // (2 * factor) * factor, last)
        if (rounded[:, 2:] - rounded[:, :2] >= factor * least).all() and (fits is None or fits(rounded)):
            return factor, rounded
    return 1, boxes
