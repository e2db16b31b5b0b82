"""One-way few-shot episodes (recipe `Episodes`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from frugalseg.batch import IGNORE_INDEX, EpisodeBatch
from frugalseg.data import settings
from frugalseg.data.base import Episode, Sample
from frugalseg.data.crop import Placement, place_mask, random_placement, top_left
from frugalseg.data.episode_files import SEED, files_of
from frugalseg.data.io import read_image, read_mask
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD, Normaliser
from frugalseg.data.recipes import Item, Recipe, Triple
from frugalseg.data.rescale import longer_side
from frugalseg.data.transforms import Augment
from frugalseg.errors import ConfigError, DatasetError

Bytes = NDArray[np.uint8]


class AbsentClassError(DatasetError):
    """A mask shows no pixel of the class that its image is listed for."""


class Episodes(Recipe):
    """A query and K supports of one class: an `EpisodeBatch`.

    Training: class, query and supports are drawn at random, and each image is augmented by itself (PFENet's settings:
    rescaling, rotation, flips, a random crop that shows the class). Evaluation: every pair of the fold's list is the
    query once; its supports are a pure function of base seed, fold and number of the episode. Images are then resized,
    each by itself, so that their longer side is `size`, and padded at the right and at the bottom, which for 256-pixel
    tiles changes nothing. An object may be too small to survive the resizing: its mask is then empty, and the episode
    stays; but a mask on disk without the class is an error, the list that named it is wrong.

    Args:
        shots: K, number of supports.
        size: side S of all images of a batch.
        per_epoch: training episodes of one epoch; None for as many as there are pairs.
        test_episodes: evaluation episodes: None takes every pair once; fewer are a seeded choice, more go round again
            with other supports.
        test_seed: base seed of the evaluation episodes, or several, each of which is tested (the usual report is the
            mean over 0 to 4) and the first of which is validated.
        episodes_file: test runs the episodes of this file (of `frugalseg episodes`, see `episode_files`), and so does
            validation of novel classes; `{seed}` in its name stands for the base seed. Nothing is drawn then:
            `test_episodes` and `val_episodes` are not looked at, and one base seed is but a name.
        val_episodes: as `test_episodes`, for validation; None takes that.
        scale: training: both sides times a uniform number lo..hi; None for off.
        rotate: training: degrees of the random rotation to either side.
        flip: training: probability of a horizontal flip.
        vertical_flip: training: probability of a vertical flip; for images seen from above.
        allow_missing_classes: evaluate although a class of the fold has no episode, which changes what the mean is of.
        mean: channel means on the scale 0..1.
        std: channel standard deviations.
    """

    needs_masks = True

    def __init__(
        self,
        shots: int = 1,
        size: int = 256,
        per_epoch: int | None = None,
        test_episodes: int | None = None,
        test_seed: int | list[int] = 0,
        scale: tuple[float, float] | None = (0.9, 1.1),
        rotate: float = 10.0,
        flip: float = 0.5,
        vertical_flip: float = 0.5,
        allow_missing_classes: bool = False,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        episodes_file: Path | None = None,
        val_episodes: int | None = None,
    ) -> None:
        counts = [1 if count is None else count for count in (per_epoch, test_episodes, val_episodes)]
        if min(shots, size, *counts) < 1:
            raise ConfigError("Episodes: shots, size, per_epoch, test_episodes and val_episodes must be at least 1")
        self.shots, self.size = shots, size
        self.per_epoch, self.test_episodes, self.val_episodes = per_epoch, test_episodes, val_episodes
        self.test_seeds = _seeds(test_seed)
        """Base seeds, the validated one first."""
        self.files = files_of(episodes_file, self.test_seeds)
        """Base seed -> file of its episodes; empty where they are drawn."""
        self.episodes_file = Path(str(episodes_file)) if self.files else None
        if len(self.files) > 1 and SEED not in str(episodes_file):
            raise ConfigError(
                f"recipe.episodes_file: {episodes_file} is one file for {len(self.files)} base seeds; put {SEED} into"
                " its name, or set recipe.test_seed to one number"
            )
        self.allow_missing_classes = allow_missing_classes
        self.normaliser = Normaliser(mean, std)
        fill = tuple(round(255 * value) for value in mean)
        self.augment = Augment(scale=scale, rotate=rotate, flip=flip, vertical_flip=vertical_flip, fill=fill)
        settings.augmentation(self.augment)

    def train_item(self, sample: Sample, num_classes: int, rng: np.random.Generator) -> Item:
        """Make an augmented episode: (3, S, S) and (K, 3, S, S) images, (S, S) and (K, S, S) masks."""
        episode = cast(Episode, sample)
        return self._item(episode, [self._augmented(s, episode, num_classes, rng) for s in _images(episode)])

    def evaluation_item(self, sample: Sample, num_classes: int) -> Item:
        """Make an episode without randomness; shapes as in training."""
        episode = cast(Episode, sample)
        return self._item(episode, [self._fitted(s, episode, num_classes) for s in _images(episode)])

    def collate(self, items: Sequence[Item]) -> EpisodeBatch:
        """Stack items; see `EpisodeBatch` for shapes."""
        supports = [item["support_id"] for item in items]
        batch = default_collate([{k: v for k, v in item.items() if k != "support_id"} for item in items])
        return cast(EpisodeBatch, {**batch, "support_id": supports})

    def _item(self, episode: Episode, pairs: list[tuple[Tensor, Tensor]]) -> Item:
        (image, mask), *supports = pairs
        return {
            "id": episode.id,
            "query_image": image,
            "query_mask": mask,
            "support_images": torch.stack([image for image, _ in supports]),
            "support_masks": torch.stack([mask for _, mask in supports]),
            "support_id": [support.id for support in episode.supports],
            "class_id": episode.class_id,
            "number": episode.number,
        }

    def _augmented(
        self, sample: Sample, episode: Episode, num_classes: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        image, ids = self.augment(*_read(sample, num_classes), rng)
        binary = _binary(cast(Bytes, ids), episode.class_id)
        size = image.shape[0], image.shape[1]
        placement = random_placement(size, self.size, rng)
        # a crop without the class teaches nothing, and a support without it has no prototype
        if not (binary[placement.source] == 1).any() and len(pixels := np.argwhere(binary == 1)):
            y, x = pixels[rng.integers(len(pixels))].tolist()
            placement = random_placement(size, self.size, rng, keep=(y, x))
        return self._placed(image, binary, placement)

    def _fitted(self, sample: Sample, episode: Episode, num_classes: int) -> tuple[Tensor, Tensor]:
        image, ids = _read(sample, num_classes)
        binary = _binary(ids, episode.class_id)
        if not (binary == 1).any():
            _demand_class(sample, episode.class_id, num_classes)
        image, fitted = longer_side(image, binary, self.size)
        binary = cast(Bytes, fitted)
        return self._placed(image, binary, top_left((image.shape[0], image.shape[1]), self.size))

    def _placed(self, image: Bytes, binary: Bytes, placement: Placement) -> tuple[Tensor, Tensor]:
        canvas = torch.from_numpy(self.normaliser.onto_canvas(image, placement))
        return canvas, torch.from_numpy(place_mask(binary, placement, IGNORE_INDEX))


def _seeds(given: int | Sequence[int]) -> tuple[int, ...]:
    seeds = (given,) if isinstance(given, int) else tuple(given)
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"recipe.test_seed is {given}: give a number from 0 upward, or several different ones")
    return seeds


def _demand_class(sample: Sample, class_id: int, num_classes: int) -> None:
    """Refuse a mask that does not show the class: stretching to the image's size may have lost it, the file decides."""
    if sample.mask is not None and not (read_mask(sample.mask, num_classes, code=sample.code) == class_id).any():
        raise AbsentClassError(f"{sample.mask}: shows no pixel of class {class_id}, for which {sample.id} is listed")


def _images(episode: Episode) -> list[Sample]:
    return [episode, *episode.supports]


def _read(sample: Sample, num_classes: int) -> tuple[Bytes, Bytes]:
    image = read_image(sample.image, keep=sample.keep)
    if sample.mask is None:  # the data module has refused such splits
        raise ConfigError(f"{sample.id}: an episode needs masks; add them or choose another split")
    size = image.shape[0], image.shape[1]
    return image, read_mask(sample.mask, num_classes, size, sample.image, sample.code, sample.keep)


def _binary(ids: Bytes, class_id: int) -> Bytes:
    """1 the class, 0 every other one, 255 ignored."""
    return np.where(ids == IGNORE_INDEX, np.uint8(IGNORE_INDEX), (ids == class_id).astype(np.uint8))
