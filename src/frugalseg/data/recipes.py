"""What one item is: `Tags`, `Segment`, `MultiScale`; `Episodes` and `Views` have files of their own.

Any benchmark takes any recipe that its labels allow.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from frugalseg.batch import IGNORE_INDEX, EpisodeBatch, ScalesBatch, SegBatch, TagBatch, ViewsBatch
from frugalseg.data import settings
from frugalseg.data.base import Sample
from frugalseg.data.crop import Placement, place_mask, random_placement, whole
from frugalseg.data.io import read_image, read_mask
from frugalseg.data.memory import batch_memory
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD, Normaliser
from frugalseg.data.rescale import rescaled
from frugalseg.data.transforms import Augment
from frugalseg.data.two_views import weak_and_strong
from frugalseg.errors import ConfigError, DatasetError

Item = dict[str, Any]
Batch = TagBatch | SegBatch | ScalesBatch | EpisodeBatch | ViewsBatch
Triple = tuple[float, float, float]
Out = Sequence[NDArray[np.float32]] | None
"""(3, S, S) canvases for an item's pictures; None has them made."""


class Recipe(ABC):
    """How samples become items and items become a batch.

    Attributes:
        needs_tags: every sample must have image-level labels, in every stage.
        needs_masks: every sample must have a mask, except when predicting.
        trains: there are training items.
        allow_empty: whether training images may show no class at all, where tags are needed.
        normaliser: how pixels become numbers.
    """

    normaliser: Normaliser

    needs_tags = False
    needs_masks = False
    trains = True
    allow_empty = False

    @abstractmethod
    def train_item(self, sample: Sample, num_classes: int, rng: np.random.Generator) -> Item:
        """Make a training item; all randomness comes from `rng`.

        Args:
            sample: what to read.
            num_classes: K, with the background.
            rng: random numbers of this draw.
        """

    def train_batch(self, samples: Sequence[Sample], num_classes: int, rngs: Sequence[np.random.Generator]) -> Batch:
        """Make a training batch.

        Args:
            samples: what to read.
            num_classes: K, with the background.
            rngs: random numbers of each draw.
        """
        return self.collate(
            [self.train_item(sample, num_classes, rng) for sample, rng in zip(samples, rngs, strict=True)]
        )

    @abstractmethod
    def evaluation_item(self, sample: Sample, num_classes: int) -> Item:
        """Make an item without randomness: the whole image.

        Args:
            sample: what to read.
            num_classes: K, with the background.
        """

    @abstractmethod
    def collate(self, items: Sequence[Item]) -> Batch:
        """Put items into one batch.

        Args:
            items: at least one.

        Raises:
            ConfigError: the items' sizes differ.
        """


class _OneImage(Recipe):
    """What `Tags` and `Segment` share: one image per item, on a canvas if there is a crop.

    Raises:
        ConfigError: a setting that no image can have.
    """

    pictures: tuple[str, ...] = ("image",)
    """Keys of what is laid on canvases."""

    def __init__(self, crop: int | None, augment: Augment, mean: Triple, std: Triple) -> None:
        if crop is not None:
            settings.at_least("recipe.crop", crop, 1)
        settings.augmentation(augment)
        self.crop, self.augment, self.normaliser = crop, augment, Normaliser(mean, std)

    @abstractmethod
    def train_item(self, sample: Sample, num_classes: int, rng: np.random.Generator, out: Out = None) -> Item:
        """As of every recipe; `out` holds the canvases for `pictures`, None makes them."""

    def train_batch(self, samples: Sequence[Sample], num_classes: int, rngs: Sequence[np.random.Generator]) -> Batch:
        """Make a training batch, each picture straight onto its place in it."""
        if self.crop is None:
            return super().train_batch(samples, num_classes, rngs)
        shape = len(samples), 3, self.crop, self.crop
        memory = {key: batch_memory(shape) for key in self.pictures}
        made = zip(samples, rngs, zip(*(pictures.numpy() for pictures in memory.values()), strict=True), strict=True)
        items = [self.train_item(sample, num_classes, rng, out) for sample, rng, out in made]
        rest = default_collate([{key: value for key, value in item.items() if key not in memory} for item in items])
        return cast(Batch, {**memory, **rest})

    def _item(self, sample: Sample, placement: Placement, out: Out, *pictures: NDArray[np.uint8]) -> Item:
        item: Item = {"id": sample.id, "box": torch.tensor(placement.box)}
        # when evaluating, there is one picture only
        for key, picture, canvas in zip(self.pictures, pictures, out or (None, None), strict=False):
            item[key] = torch.from_numpy(self.normaliser.onto_canvas(picture, placement, canvas))
        return item


class Tags(_OneImage):
    """Image with image-level labels: a `TagBatch`.

    The defaults are SFC's published VOC recipe: a random crop, nothing else. CTI's is `crop=224, flip=0.5, views=2,
    area=(0.3, 1.2)`.

    Args:
        crop: side of the training canvas; None takes the whole image (images of one size, or batch size 1).
        long_side: rescale the longer side to a uniform integer lo..hi; None for off.
        flip: probability of a horizontal flip.
        allow_empty: train also on images that show no class at all, such as 702 of COCO's 82,783.
        mean: channel means on the scale 0..1.
        std: channel standard deviations.
        views: 2 adds `strong`, a second resized crop of its own box and flip, changed by `randaugment` or `colour`.
        area: makes resized crops, of this part of the image's area, lo..hi, of which hi may exceed 1
            (`resized_crop.crop_box`); None cuts the crop out of the image as it is.
        aspect: width over height of resized crops before they are resized, lo..hi.
        randaugment: RandAugment of the second view, as timm writes it; None for off.
        colour: strength of the second view's jitter of brightness, contrast and saturation; 0 for off.
        scaled: decode JPEGs at the part of their size that resized crops allow; see `picture`.
    """

    needs_tags = True

    def __init__(
        self,
        crop: int | None = 512,
        long_side: tuple[int, int] | None = None,
        flip: float = 0.0,
        allow_empty: bool = False,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        views: int = 1,
        area: tuple[float, float] | None = None,
        aspect: tuple[float, float] = (3 / 4, 4 / 3),
        randaugment: str | None = "rand-m9-mstd0.5-inc1",
        colour: float = 0.0,
        scaled: bool = False,
    ) -> None:
        super().__init__(crop, Augment(long_side=long_side, flip=flip), mean, std)
        self.views = weak_and_strong(views, crop, long_side, area, aspect, flip, randaugment, colour, mean, scaled)
        self.allow_empty, self.pictures = allow_empty, ("image", "strong")[:views]

    def train_item(self, sample: Sample, num_classes: int, rng: np.random.Generator, out: Out = None) -> Item:
        """Make (3, S, S) image, (C,) tags, (4,) box and, with two views, (3, S, S) strong."""
        if self.views is not None:
            views = self.views(sample, rng)
            item = self._item(sample, whole(_size(views[0])), out, *views)
        else:
            image, _ = self.augment(read_image(sample.image, keep=sample.keep), None, rng)
            item = self._item(sample, _place(image, self.crop, rng), out, image)
        item["tags"] = tags_vector(sample, num_classes - 1)
        return item

    def evaluation_item(self, sample: Sample, num_classes: int) -> Item:
        """Make the whole image, its tags and, where there is one, its mask."""
        image = read_image(sample.image, keep=sample.keep)
        item = self._item(sample, whole(_size(image)), None, image)
        item["tags"] = tags_vector(sample, num_classes - 1)
        if sample.mask is not None:
            ids = read_mask(sample.mask, num_classes, _size(image), sample.image, sample.code, sample.keep)
            item["mask"] = torch.from_numpy(ids.astype(np.int64))
        return item

    def collate(self, items: Sequence[Item]) -> TagBatch:
        """Stack items; see `TagBatch` for shapes."""
        return cast(TagBatch, _stack(items))


class Segment(_OneImage):
    """Image with mask: a `SegBatch`.

    Args:
        crop: side of the training canvas; None takes the whole image (images of one size, or batch size 1).
        scale: both sides times a uniform number lo..hi before the crop; None for off.
        flip: probability of a horizontal flip.
        colour: strength of the colour jitter; 0 for off.
        mean: channel means on the scale 0..1.
        std: channel standard deviations.
        hue: largest turn of the hue as part of a circle; None for a quarter of `colour`.
    """

    needs_masks = True

    def __init__(
        self,
        crop: int | None = 512,
        scale: tuple[float, float] | None = (0.5, 1.5),
        flip: float = 0.5,
        colour: float = 0.0,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        hue: float | None = None,
    ) -> None:
        super().__init__(crop, Augment(scale=scale, flip=flip, colour=colour, hue=hue), mean, std)

    def train_item(self, sample: Sample, num_classes: int, rng: np.random.Generator, out: Out = None) -> Item:
        """Make (3, S, S) image, (S, S) mask, (4,) box."""
        image = read_image(sample.image, keep=sample.keep)
        image, mask = self.augment(image, self._mask(sample, num_classes, _size(image)), rng)
        placement = _place(image, self.crop, rng)
        item = self._item(sample, placement, out, image)
        item["mask"] = torch.from_numpy(place_mask(cast(NDArray[np.uint8], mask), placement, IGNORE_INDEX))
        return item

    def evaluation_item(self, sample: Sample, num_classes: int) -> Item:
        """Make the whole image and its mask; where there is none (prediction), every pixel is 255."""
        image = read_image(sample.image, keep=sample.keep)
        placement = whole(_size(image))
        item = self._item(sample, placement, None, image)
        mask = self._mask(sample, num_classes, placement.size)
        item["mask"] = torch.from_numpy(place_mask(mask, placement, IGNORE_INDEX))
        return item

    def collate(self, items: Sequence[Item]) -> SegBatch:
        """Stack items; see `SegBatch` for shapes."""
        return cast(SegBatch, _stack(items))

    def _mask(self, sample: Sample, num_classes: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        if sample.mask is None:
            return np.full(size, IGNORE_INDEX, np.uint8)
        return read_mask(sample.mask, num_classes, size, sample.image, sample.code, sample.keep)


class MultiScale(Recipe):
    """One image at several scales, each with its mirror image: a `ScalesBatch`, for prediction only.

    Args:
        scales: factors; a side becomes round(factor * side) by Pillow's bicubic on uint8; 1 is the untouched image.
        mean: channel means on the scale 0..1.
        std: channel standard deviations.
    """

    trains = False

    def __init__(
        self,
        scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0),
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
    ) -> None:
        settings.positive("recipe.scales", scales)
        self.scales = scales
        self.normaliser = Normaliser(mean, std)

    def train_item(self, *_: object, **__: object) -> Item:
        """Refuse.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("MultiScale is a recipe for prediction; train with Tags or Segment (data.recipe)")

    def evaluation_item(self, sample: Sample, num_classes: int) -> Item:
        """Make one (2, 3, H_s, W_s) tensor per scale, and tags where they are known."""
        image = read_image(sample.image, keep=sample.keep)
        images = [torch.from_numpy(self.normaliser.pair(rescaled(image, scale))) for scale in self.scales]
        item: Item = {"id": sample.id, "images": images, "size": _size(image)}
        item["pixels"] = torch.from_numpy(np.array(image))  # a copy: what Pillow lends is read-only
        if sample.tags is not None:
            item["tags"] = tags_vector(sample, num_classes - 1)
        return item

    def collate(self, items: Sequence[Item]) -> ScalesBatch:
        """Wrap one item; see `ScalesBatch` for shapes.

        Raises:
            ConfigError: more than one item.
        """
        if len(items) != 1:
            raise ConfigError(f"MultiScale takes one image per batch, not {len(items)}")
        (item,) = items
        batch = ScalesBatch(id=[item["id"]], images=item["images"], size=item["size"], pixels=item["pixels"])
        if "tags" in item:
            batch["tags"] = item["tags"][None]
        return batch


def tags_vector(sample: Sample, classes: int) -> Tensor:
    """Turn a sample's tags into (C,) float32 of zeros and ones.

    Args:
        sample: the sample.
        classes: C, number of foreground classes.

    Raises:
        DatasetError: the sample has no tags.
    """
    if sample.tags is None:
        raise DatasetError(f"{sample.id}: has no image-level labels; choose a recipe without tags")
    vector = torch.zeros(classes)
    vector[list(sample.tags)] = 1
    return vector


def _size(image: NDArray[np.uint8]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _place(image: NDArray[np.uint8], crop: int | None, rng: np.random.Generator) -> Placement:
    return whole(_size(image)) if crop is None else random_placement(_size(image), crop, rng)


def _stack(items: Sequence[Item]) -> dict[str, Any]:
    if len(sizes := {tuple(item["image"].shape[1:]) for item in items}) > 1:
        raise ConfigError(f"images of {len(sizes)} sizes in one batch: set a crop in the recipe, or batch_size to 1")
    # default_collate stacks straight into shared memory when it runs in a worker
    batch: dict[str, Any] = default_collate(list(items))
    return batch
