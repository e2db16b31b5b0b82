"""Random resized crops of an image together with its mask (recipe `ResizedSegment`)."""

from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from frugalseg.data import settings
from frugalseg.data.base import Sample
from frugalseg.data.crop import whole
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.data.picture import Picture
from frugalseg.data.recipes import Item, Out, Segment, Triple
from frugalseg.data.resized_crop import crop_box, resized
from frugalseg.errors import ConfigError


class ResizedSegment(Segment):
    """Image with mask, as `Segment`, but trained on random resized crops: protocol L's augmentation (mevt.md d.2).

    The box is drawn as torchvision does (`crop_box`). The facts do not name a filter: the image takes the antialiased
    bicubic of all resized crops here, the mask the pixel under each cell's centre. Nothing is padded, so 255 means what
    it means in the file. Evaluation items are the whole images of `Segment`.

    Args:
        crop: side of the training images.
        area: part of the image's area that is cut out, uniform in lo..hi.
        aspect: width over height of what is cut out, log-uniform in lo..hi.
        flip: probability of a horizontal flip.
        mean: channel means on the scale 0..1.
        std: channel standard deviations.
        scaled: decode JPEGs at the part of their size that the crop allows (see `picture`); masks are read whole, and
            cut where the image's pixels are.

    Raises:
        ConfigError: a setting that no image can have.
    """

    def __init__(
        self,
        crop: int = 448,
        area: tuple[float, float] = (0.8, 1.0),
        aspect: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        scaled: bool = False,
    ) -> None:
        super().__init__(crop, scale=None, flip=flip, mean=mean, std=std)
        settings.span("recipe.area", area)
        settings.span("recipe.aspect", aspect)
        if area[1] > 1:
            raise ConfigError(f"recipe.area is {area}, which fits into no image: set it to lo, hi with hi <= 1")
        self.side, self.area, self.aspect, self.flip, self.scaled = crop, area, aspect, flip, scaled

    def train_item(self, sample: Sample, num_classes: int, rng: np.random.Generator, out: Out = None) -> Item:
        """Make (3, S, S) image, (S, S) mask, (4,) box: the whole canvas."""
        picture = Picture(sample, self.scaled)
        mask = self._mask(sample, num_classes, picture.size)
        (crop,), boxes = picture.crops(np.array([crop_box(picture.size, self.area, self.aspect, rng)]), [self.side])
        x0, y0, x1, y1 = boxes[0].tolist()
        view, ids = resized(crop, self.side), nearest(mask[y0:y1, x0:x1], self.side)
        if rng.random() < self.flip:
            view, ids = cast(NDArray[np.uint8], cv2.flip(view, 1)), ids[:, ::-1]
        item = self._item(sample, whole((self.side, self.side)), out, view)
        item["mask"] = torch.from_numpy(ids.astype(np.int64))
        return item


def nearest(ids: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize class ids to a square: the pixel under each cell's centre, the further one where that is between two.

    Worked out in integers: OpenCV's fixed-point sums round some of the centres between two pixels the other way.

    Args:
        ids: (h, w) uint8.
        side: S.

    Returns:
        (S, S) uint8.
    """
    rows, columns = ((2 * np.arange(side) + 1) * length // (2 * side) for length in ids.shape)
    return cast(NDArray[np.uint8], ids[rows[:, None], columns])
