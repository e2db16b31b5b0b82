"""From images to kept features, and from kept features to batches: protocol `L-cached`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from frugalseg.batch import SegBatch
from frugalseg.errors import ConfigError, DatasetError
from frugalseg.nn.features import FrozenFeatures
from frugalseg.nn.inputs import resized
from frugalseg.position import position_of
from frugalseg.stages.probe.cache import CachedSplit, CacheWriter
from frugalseg.stages.probe.index import read_index
from frugalseg.stages.probe.order import RowLoader, RowOrder
from frugalseg.stages.probe.protocols import target


class FeatureBatch(TypedDict):
    """Images as their frozen features."""

    id: list[str]
    features: Tensor
    """(N, D, h, w) float16."""
    mask: Tensor
    """(N, g, g) uint8, 255 ignored."""


@torch.no_grad()
def work_out(
    writer: CacheWriter,
    backbone: FrozenFeatures,
    batches: Iterable[SegBatch],
    input_size: int,
    grid: int,
    device: torch.device | str = "cpu",
) -> int:
    """Work out and store the features of those images that are still missing; other processes may do others.

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
    if count:
        writer.flush()
    return count


def fill(
    writer: CacheWriter,
    backbone: FrozenFeatures,
    batches: Iterable[SegBatch],
    input_size: int,
    grid: int,
    device: torch.device | str = "cpu",
) -> int:
    """Work out and store all features that are still missing, and make the split visible; see `work_out`."""
    count = work_out(writer, backbone, batches, input_size, grid, device)
    writer.finish()
    return count


class _Rows(Dataset[FeatureBatch]):
    """Batches of a split, addressed by lists of rows."""

    def __init__(self, split: CachedSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, rows: list[int]) -> FeatureBatch:
        features, mask = self.split.rows(rows)
        return {"id": [self.split.ids[row] for row in rows], "features": features, "mask": mask}


class CachedFeatures(LightningDataModule):
    """Batches of kept features, which `frugalseg cache` has worked out; no image is read.

    Training resumes inside an epoch: `state_dict` holds the position. Validation sees every image once, on one rank.

    Args:
        index: the file `cache.json` that the command has written.
        batch_size: images per rank and step.
        num_workers: loader processes, which read ahead.
        seed: of the order; None takes PL_GLOBAL_SEED, else 0.

    Raises:
        DatasetError: there is no such file, or it is damaged.
        ConfigError: a number that cannot be meant.
    """

    def __init__(self, index: str | Path, batch_size: int = 60, num_workers: int = 0, seed: int | None = None) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise ConfigError("data.batch_size must be at least 1, data.num_workers at least 0")
        self.index = read_index(Path(index))
        self.batch_size, self.num_workers = batch_size, num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self._resume: tuple[int, int, int] | None = None
        self._train: RowLoader | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return self.index.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names, in the order of the class ids."""
        return self.index.class_names

    @property
    def fold_classes(self) -> tuple[int, ...]:
        """None: there are no few-shot folds here."""
        return ()

    @property
    def digest(self) -> str:
        """Names of the net, the data and the sizes, one split after the other."""
        return " ".join(digest for _, digest in (self.index.train, self.index.val))

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of images of each split."""
        return self.index.images

    def setup(self, stage: str | None = None) -> None:
        """Forget the position of another fit; Lightning loads a checkpoint after this."""
        if stage in (None, "fit"):
            self._resume = self._train = None

    def train_dataloader(self) -> RowLoader:
        """Shuffled batches, another order each epoch, from where the checkpoint says on.

        Raises:
            DatasetError: there are more processes than images.
        """
        epoch, start, ahead = self._resume or (self.trainer.current_epoch if self.trainer else 0, 0, 0)
        self._resume = None
        split = self._split("train")
        order = RowOrder(len(split), self.batch_size, self.seed, *self._place(), epoch, start, ahead)
        self._train = self._loader(split, order)
        return self._train

    def val_dataloader(self) -> RowLoader:
        """All images once.

        Raises:
            DatasetError: there are more processes than images.
        """
        split = self._split("val")
        rank, world = self._place()
        return self._loader(split, RowOrder(len(split), self.batch_size, rank=rank, world=world))

    def state_dict(self) -> dict[str, int]:
        """Position of a running fit, as that of `frugalseg.data.module.SegmentationData`; {} outside of one."""
        if self._train is None or self.trainer is None:
            return {}
        return position_of(self.trainer, self._train.position)

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take a position over for the next train loader.

        Args:
            state_dict: what `state_dict` gave.
        """
        self._resume = state_dict["epoch"], state_dict["batch"], state_dict["ahead"]

    def _split(self, role: str) -> CachedSplit:
        split, (_, world) = CachedSplit(self.index.root, *getattr(self.index, role)), self._place()
        if len(split) < world:  # Lightning would call that a finished fit, or let the others wait
            raise DatasetError(
                f"{self.index.root}: {len(split)} images of the {role} split for {world} processes: lower"
                " trainer.devices"
            )
        return split

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, split: CachedSplit, order: RowOrder) -> RowLoader:
        # its own generator: a loader draws a number per epoch, which would shift the model's random numbers
        own = torch.Generator().manual_seed(self.seed)
        return RowLoader(
            _Rows(split), sampler=order, batch_size=None, num_workers=self.num_workers, generator=own,
            pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
