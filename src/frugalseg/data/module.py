"""The LightningDataModule that all benchmarks share."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from frugalseg import limits
from frugalseg.batch import ViewsBatch
from frugalseg.data import settings
from frugalseg.data.base import ClassTable, Sample, count_tags, samples_digest
from frugalseg.data.colour import finish_views
from frugalseg.data.demands import demand
from frugalseg.data.description import Description
from frugalseg.data.episode_table import EpisodeTable
from frugalseg.data.episodes import Episodes
from frugalseg.data.few_shot import evaluated, make_table
from frugalseg.data.io import image_size
from frugalseg.data.kept import Kept
from frugalseg.data.loader import (
    EvaluationItems,
    Loader,
    TrainEpisodes,
    TrainItems,
    TrainLoader,
    quiet_worker,
)
from frugalseg.data.pseudo import PseudoLabels
from frugalseg.data.recipes import MultiScale, Recipe
from frugalseg.data.sampler import ExactSampler, TrainSampler
from frugalseg.errors import ConfigError, DatasetError
from frugalseg.position import position_of

log = logging.getLogger(__name__)

_ROLES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class SegmentationData(LightningDataModule, Description):
    """Splits of one benchmark through a recipe.

    A benchmark adds what `Description` asks for. Training resumes inside an epoch: `state_dict` holds the position.

    Args:
        root: folder of the data set.
        recipe: what an item is in training, validation and testing.
        predict_recipe: what an item is in prediction; None for `MultiScale()`.
        train_split: split that is trained on.
        val_split: split that is validated on.
        test_split: split that is tested on.
        predict_split: split that is predicted.
        batch_size: training images per process and step; evaluation takes one image at a time.
        num_workers: loader processes.
        seed: seed of order and augmentation; None takes PL_GLOBAL_SEED, else 0.
        pseudo_labels: folder of masks that replace the training split's.
        limit: use only the first so many samples of each split; for smoke runs.
        cache: folder for decoded images and masks, shared by any number of runs and data sets, see `Kept`; batches stay
            the same. Needs 0.7 MB a VOC image and 8 MB a Cityscapes frame. None keeps nothing. Pseudo
            labels, which change with every run, are not kept.
    """

    def __init__(
        self,
        root: str | Path,
        recipe: Recipe,
        predict_recipe: Recipe | None = None,
        train_split: str = "train",
        val_split: str = "val",
        test_split: str = "val",
        predict_split: str = "train",
        batch_size: int = 16,
        num_workers: int = 2,
        seed: int | None = None,
        pseudo_labels: str | Path | None = None,
        limit: int | None = None,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__()
        # what is left to predict may be less than there are ranks
        self.allow_zero_length_dataloader_with_multiple_devices = True
        if batch_size < 1 or num_workers < 0 or (limit is not None and limit < 1):
            raise ConfigError("data.batch_size and data.limit must be at least 1, data.num_workers at least 0")
        self.root = Path(root)
        self.recipe = recipe
        self.predict_recipe = predict_recipe or MultiScale()
        self.splits = {"train": train_split, "val": val_split, "test": test_split, "predict": predict_split}
        self.batch_size, self.num_workers, self.limit = batch_size, num_workers, limit
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        settings.at_least("data.seed", self.seed, 0)
        self.pseudo_labels = pseudo_labels
        passing = None if pseudo_labels is None else Path(pseudo_labels)
        self.keep = None if cache is None else Kept(Path(cache), passing)
        self.classes: ClassTable = self.describe()
        self._samples: dict[str, list[Sample]] = {}
        self._tables: dict[str, EpisodeTable] = {}
        self._skip: set[str] = set()
        self._resume: tuple[int, int, int] | None = None
        self._train_loader: TrainLoader | None = None

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(C,) training images per foreground class."""
        return count_tags(self.samples("train"), self.classes.foreground)

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of samples of each role that has been listed."""
        return {role: len(found) for role, found in self._samples.items()}

    @property
    def digest(self) -> str:
        """SHA-256 over what has been listed: ids, tags, and the sizes in bytes of images and masks."""
        return samples_digest(self._samples)

    def samples(self, role: str) -> list[Sample]:
        """Samples of a role, listed on first use.

        Args:
            role: "train", "val", "test" or "predict".

        Raises:
            ConfigError: the training recipe is for prediction only.
            DatasetNotFoundError: the root or the pseudo labels are not there.
            DatasetError: something that the recipe needs is missing.
        """
        if role not in self._samples:
            recipe = self._recipe(role)
            if role == "train" and not recipe.trains:
                raise ConfigError(f"{type(recipe).__name__} cannot train; set data.recipe to Tags or Segment")
            found = self.chosen(role, self.index(self.splits[role]))[: self.limit]
            if role == "train" and self.pseudo_labels is not None:
                if isinstance(recipe, Episodes):  # the lists of pairs say what the benchmark's own masks show
                    raise ConfigError(
                        "data.pseudo_labels: Episodes need the benchmark's own masks; take one of the two"
                    )
                found = PseudoLabels(self.pseudo_labels).over(found)
            where = f"split {self.splits[role]} of {self.root}"
            demand(recipe, role, found, where, (self.tags_from(), self.masks_from()))
            self._samples[role] = [replace(s, keep=self.keep) for s in found] if self.keep else found
        return self._samples[role]

    def setup(self, stage: str | None = None) -> None:
        """List the splits that a stage needs.

        Args:
            stage: "fit", "validate", "test", "predict", or None for all.
        """
        if stage in (None, "fit"):  # Lightning loads a checkpoint after this: what is left over is another fit's
            self._resume = self._train_loader = None
        for role in _ROLES[stage] if stage else dict.fromkeys(role for roles in _ROLES.values() for role in roles):
            self.samples(role)

    def skip(self, ids: set[str]) -> None:
        """Leave these ids out of the next predict loader.

        Args:
            ids: ids whose predictions are on disk already.
        """
        self._skip = set(ids)

    def train_dataloader(self) -> TrainLoader:
        """Shuffled batches, from where the checkpoint says on.

        Raises:
            ConfigError: Lightning would replace the sampler.
            DatasetError: the split has less images than one step takes.
        """
        if self.trainer and getattr(self.trainer, "overfit_batches", None):  # set by Lightning without a declaration
            raise ConfigError("trainer.overfit_batches replaces the training sampler; use data.limit instead")
        samples, (rank, world) = self.samples("train"), self._place()
        epoch, start, ahead = self._resume or (self.trainer.current_epoch if self.trainer else 0, 0, 0)
        self._resume = None
        items = self._train_items(samples)
        sampler = TrainSampler(
            len(items), self.batch_size, self.seed, rank, world, epoch=epoch, start=start, ahead=ahead
        )
        if not len(sampler):
            unit = "episodes" if isinstance(self.recipe, Episodes) else "images"
            raise DatasetError(
                f"split {self.splits['train']} of {self.root} has {len(items)} {unit}, one step takes"
                f" {self.batch_size} x {world}: lower data.batch_size or raise data.limit"
            )
        # batch_size None: the sampler yields whole batches
        self._train_loader = TrainLoader(items, sampler=sampler, batch_size=None, **self._loading(keep_workers=True))
        return self._train_loader

    def val_dataloader(self) -> Loader:
        """Whole images (or episodes) of the validation split, one at a time."""
        return self._evaluation_loaders("val")[0]

    def test_dataloader(self) -> Loader | list[Loader]:
        """Whole images of the test split, one at a time; of `Episodes` with several base seeds one loader each."""
        loaders = self._evaluation_loaders("test")
        return loaders if len(loaders) > 1 else loaders[0]

    def predict_dataloader(self) -> Loader:
        """Whole images of the predict split that are not skipped, one at a time."""
        return self._evaluation_loaders("predict")[0]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the colour changes that `Views(colour="device")` has left for the device.

        Args:
            batch: of any recipe, on its device.
            dataloader_idx: not looked at.
        """
        unfinished = isinstance(batch, dict) and "colour" in batch
        if not unfinished:
            return batch
        finished = finish_views(cast(ViewsBatch, batch), self.recipe.normaliser)
        # the trainer has converted the batch to its precision already, before there were floats to convert
        return self.trainer.precision_plugin.convert_input(finished) if self.trainer else finished

    def episode_table(self, role: str) -> EpisodeTable:
        """The few-shot pairs of a role, matched with its samples on first use.

        Args:
            role: "train", "val" or "test".

        Raises:
            ConfigError: the benchmark has no few-shot folds.
            DatasetError: see `make_table`.
        """
        if role not in self._tables:
            self._tables[role] = make_table(self, cast(Episodes, self._recipe(role)), role)
        return self._tables[role]

    def state_dict(self) -> dict[str, int]:
        """Position of a running fit.

        Returns:
            Epoch, number of its batches that were trained, and by how much Lightning's number of the epoch is ahead
            (see `TrainSampler`); {} outside of a fit.
        """
        if self._train_loader is None or self.trainer is None:
            return {}
        return position_of(self.trainer, self._train_loader.position)

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take a position over for the next train loader.

        Args:
            state_dict: what `state_dict` gave.
        """
        # older checkpoints do not say how far Lightning is ahead
        self._resume = state_dict["epoch"], state_dict["batch"], state_dict.get("ahead", 0)

    def _recipe(self, role: str) -> Recipe:
        return self.predict_recipe if role == "predict" else self.recipe

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _train_items(self, samples: Sequence[Sample]) -> TrainItems:
        if isinstance(self.recipe, Episodes):
            table = self.episode_table("train")
            return TrainEpisodes(samples, self.recipe, self.num_classes, self.seed, table)
        return TrainItems(samples, self.recipe, self.num_classes, self.seed)

    def _evaluation_loaders(self, role: str) -> list[Loader]:
        samples, recipe = self.samples(role), self._recipe(role)
        if role == "predict" and self._skip:
            samples, self._skip = [sample for sample in samples if sample.id not in self._skip], set()
        kinds: Sequence[EvaluationItems] = (
            evaluated(self, recipe, role)
            if isinstance(recipe, Episodes)
            else [EvaluationItems(samples, recipe, self.num_classes)]
        )
        place, loading = self._place(), self._loading(keep_workers=role == "val")  # the others are read once
        if role != "predict" and (few := min(map(len, kinds))) < place[1]:
            # Lightning would leave the end of the epoch out on a rank without any, where the others wait for it
            raise DatasetError(
                f"split {self.splits[role]} of {self.root} has {few} to score for {place[1]} processes: lower"
                " trainer.devices"
            )
        # scoring takes the order of the split; maps of large images take longer, and are files that know no order
        by_size = role == "predict" and place[1] > 1 and not isinstance(recipe, Episodes)
        sizes = [math.prod(image_size(sample.image)) for sample in samples] if by_size else None
        return [
            Loader(
                items,
                sampler=ExactSampler(len(items), *place, sizes),
                batch_size=1,
                collate_fn=recipe.collate,
                **loading,
            )
            for items in kinds
        ]

    def _loading(self, keep_workers: bool) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": keep_workers and self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": partial(quiet_worker, held=limits.now()),
            # its own, because a loader draws a number per epoch: from torch's it would shift the model's random numbers
            "generator": torch.Generator().manual_seed(self.seed),
        }
