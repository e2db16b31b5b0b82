"""What the frozen backbone makes of images that come back: kept by image, and by image and mask.

A training without augmentation sees each tile many times, and so do the five base seeds of an evaluation; the backbone
would do most of the work again. Nothing here learns, so what is kept stays true as long as the backbone is the same.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from frugalseg.nn.digests import digest, digest_of_net
from frugalseg.nn.dilated import Stages

Last = tuple[Tensor, Tensor]
"""`DSMFNet.masked_last` of one image: features (1, D4, h, w) and soft mask (1, h, w)."""


class Kept(NamedTuple):
    """How far a cache is filled."""

    images: int
    pairs: int
    bytes: int
    hits: int
    misses: int


class FeatureCache:
    """Keeps frozen features until a number of bytes is reached; those beyond are worked out anew each time.

    An image is known by its pixels and not by its name: an augmented one is another image, so that no setting can make
    a kept feature wrong. With augmentation nothing ever comes back, and the memory is better saved. Every image is
    worked out by itself: results do not depend on what else is in a batch.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._stages: dict[bytes, Stages] = {}
        self._last: dict[tuple[bytes, bytes], Last] = {}
        self._used = self._hits = self._misses = 0

    @property
    def kept(self) -> Kept:
        """How far it is filled."""
        return Kept(len(self._stages), len(self._last), self._used, self._hits, self._misses)

    def stages(self, images: Tensor, make: Callable[[Tensor], Stages]) -> Stages:
        """All four stages of some images.

        Args:
            images: (N, 3, H, W).
            make: works them out for one image.

        Returns:
            `Stages` of N images.
        """
        found = [self._of_image(image[None], make) for image in images]
        return Stages(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def last(self, images: Tensor, masks: Tensor, make: Callable[[int], Last]) -> Last:
        """The masked last stage of some images.

        Args:
            images: (M, 3, H, W).
            masks: (M, H, W).
            make: works it out for the image of that number.

        Returns:
            (M, D4, h, w) and (M, h, w).
        """
        pairs = enumerate(zip(images, masks, strict=True))
        found = [self._of_pair((digest(image), digest(mask)), number, make) for number, (image, mask) in pairs]
        return torch.cat([features for features, _ in found]), torch.cat([mask for _, mask in found])

    def _of_pair(self, key: tuple[bytes, bytes], number: int, make: Callable[[int], Last]) -> Last:
        if (known := self._last.get(key)) is not None:
            self._hits += 1
            return known
        self._misses += 1
        with usable_in_training():
            features, mask = make(number)
            # without a prior the features are an empty view, which would hold the whole batch it was cut from
            known = features.clone(), mask.clone()
        if self._room(known):
            self._last[key] = known
        return known

    def _of_image(self, image: Tensor, make: Callable[[Tensor], Stages]) -> Stages:
        key = digest(image)
        if (known := self._stages.get(key)) is not None:
            self._hits += 1
            return known
        self._misses += 1
        with usable_in_training():
            known = make(image)
        if self._room(known):
            self._stages[key] = known
        return known

    def _room(self, tensors: Sequence[Tensor]) -> bool:
        """Whether there is room; takes it."""
        size = sum(part.numel() * part.element_size() for part in tensors)
        fits = self._used + size <= self.limit
        self._used += size * fits
        return fits


@contextmanager
def usable_in_training() -> Iterator[None]:
    """No graph, and no inference mode either: a fit may take what an evaluation has kept."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@lru_cache(maxsize=1)
def shared_features(net: str, precision: str, device: str, limit: int) -> FeatureCache:  # noqa: ARG001 - the key
    """The cache of one backbone, shared by the stages of a process (`frugalseg fit ... + test ... + fit ...`).

    Asking for that of another backbone lets the former go.

    Args:
        net: `digest_of_net` of the backbone.
        precision: of the Trainer, which decides what the features are rounded to.
        device: where they are.
        limit: bytes.
    """
    return FeatureCache(limit)


def features_of(task: LightningModule, backbone: nn.Module, limit: int) -> FeatureCache | None:
    """The cache for a task's backbone as it is now.

    Args:
        task: with its Trainer.
        backbone: frozen.
        limit: bytes; 0 keeps nothing.
    """
    if not limit:
        return None
    return shared_features(digest_of_net(backbone), str(task.trainer.precision), str(task.device), limit)
