"""What is true of a data set, whatever is done with it."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.base import ClassTable, Pair, Sample
from frugalseg.data.io import write_mask
from frugalseg.errors import ConfigError


class Description(ABC):
    """Classes, splits and folds of one benchmark; each adds `describe` and `index`."""

    classes: ClassTable

    @abstractmethod
    def describe(self) -> ClassTable:
        """Name the classes without touching images; a missing root is no error here."""

    @abstractmethod
    def index(self, split: str) -> list[Sample]:
        """List the samples of a split.

        Args:
            split: name of the split.

        Raises:
            DatasetNotFoundError: the root is not there.
            DatasetError: images are missing, or the split is empty.
        """

    def tags_from(self) -> str:
        """How one comes by image-level labels that are missing, for messages."""
        return "this data set has none"

    def masks_from(self) -> str:
        """How one comes by masks that are missing, for messages."""
        return "add the masks"

    fold = 0
    """Number of the few-shot fold whose classes are tested; benchmarks with folds set it."""

    @property
    def fold_classes(self) -> tuple[int, ...]:
        """Class ids, as in decoded masks, that the fold tests; none where the benchmark has no folds."""
        return ()

    def pairs(self, role: str) -> list[Pair]:
        """List the (image, class) pairs that few-shot episodes are made of.

        Args:
            role: "train" for the pairs of the other folds' classes in the training split, "val" or "test" for those of
                the fold's own classes in the validation split.

        Raises:
            ConfigError: the benchmark has no few-shot folds.
        """
        raise ConfigError(f"{type(self).__name__} has no few-shot folds; use Episodes with VOC, COCO, ISAID5i or DLRSD")

    @property
    def num_classes(self) -> int:
        """K, with the background."""
        return self.classes.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names, background first."""
        return self.classes.names

    @property
    def palette(self) -> NDArray[np.uint8]:
        """(256, 3) uint8."""
        return self.classes.palette

    def write_mask(self, path: Path, ids: NDArray[np.uint8], run: str = "") -> None:
        """Write class ids as a PNG in the benchmark's palette, whole or not at all.

        Args:
            path: target; its folder is made.
            ids: (H, W) uint8.
            run: digest of the run that makes it, kept in the file.
        """
        write_mask(path, ids, self.palette, run)
