"""From images to kept features, and from kept features to batches: protocol `L-cached`."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from frugalseg.batch import SegBatch
from frugalseg.nn.features import FrozenFeatures
from frugalseg.nn.inputs import resized
from frugalseg.stages.probe.cache import CachedSplit, CacheWriter
from frugalseg.stages.probe.protocols import target


class FeatureBatch(TypedDict):
    """Images as their frozen features."""

    id: list[str]
    features: Tensor
    """(N, D, h, w) float16."""
    mask: Tensor
    """(N, g, g) uint8, 255 ignored."""


@torch.no_grad()
def fill(
    writer: CacheWriter,
    backbone: FrozenFeatures,
    batches: Iterable[SegBatch],
    input_size: int,
    grid: int,
    device: torch.device | str = "cpu",
) -> int:
    """Work out and store the features of those images that are still missing.

    Args:
        writer: of the split.
        backbone: on `device`.
        batches: un-augmented images and masks; those that are stored already are passed over.
        input_size: side of the images.
        grid: side of the masks.
        device: where the backbone is.

    Returns:
        Number of images that were worked out.
    """
    missing, count = set(writer.missing()), 0
    for batch in batches if missing else ():
        # one at a time: with the batch's size a float32 product changes its last bits
        for name, image, mask in zip(batch["id"], batch["image"], batch["mask"], strict=True):
            if name in missing:
                features = backbone.dense(resized(image[None].to(device), (input_size, input_size)))
                writer.put(name, features[0], target(mask[None], input_size, grid)[0])
                missing.discard(name)
                count += 1
    writer.finish()
    return count


class _Batches(IterableDataset[FeatureBatch]):
    """Whole batches of one rank, in the order of an epoch."""

    def __init__(
        self,
        split: CachedSplit,
        size: int,
        place: tuple[int, int],
        seed: int | None = None,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.split, self.size, self.seed, self.epoch = split, size, seed, epoch
        self.rank, self.world = place

    def _order(self) -> list[list[int]]:
        count = len(self.split)
        if self.seed is None:
            mine = list(range(self.rank, count, self.world))
            return [mine[begin : begin + self.size] for begin in range(0, len(mine), self.size)]
        order = np.random.default_rng([self.seed, self.epoch()]).permutation(count).tolist()
        # a split smaller than one block is one smaller block
        size = min(self.size, count // self.world)
        blocks = range(0, count - size * self.world + 1, size * self.world) if size else ()
        return [order[begin + self.rank * size : begin + (self.rank + 1) * size] for begin in blocks]

    def __len__(self) -> int:
        return len(self._order())

    def __iter__(self) -> Iterator[FeatureBatch]:
        for rows in self._order():
            features, mask = self.split.rows(rows)
            yield {"id": [self.split.ids[row] for row in rows], "features": features, "mask": mask}


class CachedFeatures(LightningDataModule):
    """Batches of kept features; no image is read.

    Training blocks of `world * batch_size` images are those of one rank with the larger batch; a last incomplete one is
    left out unless it is the only one. Validation sees every image once, on one rank.

    Args:
        root: folder of all caches.
        train: name and digest of the split that is trained on.
        val: likewise, of the split that is scored.
        batch_size: images per rank and step.
        seed: of the order.
    """

    def __init__(
        self, root: Path, train: tuple[str, str], val: tuple[str, str], batch_size: int = 60, seed: int = 0
    ) -> None:
        super().__init__()
        self.root, self.splits, self.batch_size, self.seed = root, {"train": train, "val": val}, batch_size, seed

    def _loader(self, role: str, seed: int | None) -> DataLoader[FeatureBatch]:
        trainer = self.trainer
        place = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        split = CachedSplit(self.root, *self.splits[role])
        epoch = (lambda: trainer.current_epoch) if trainer is not None else (lambda: 0)
        return DataLoader(_Batches(split, self.batch_size, place, seed, epoch), batch_size=None)

    def train_dataloader(self) -> DataLoader[FeatureBatch]:
        """Shuffled batches, another order each epoch."""
        return self._loader("train", self.seed)

    def val_dataloader(self) -> DataLoader[FeatureBatch]:
        """All images once."""
        return self._loader("val", None)
