"""What is true of a data set, whatever is done with it."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.base import ClassTable, Pair, Sample
from frugalseg.data.io import write_mask
from frugalseg.errors import ConfigError

ValClasses = Literal["base", "novel"]
"""Whose classes few-shot validation looks at: base ones that were trained, or the tested ones, as the field does."""


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

    def chosen(self, role: str, samples: list[Sample]) -> list[Sample]:
        """Samples of a split that a role takes: all, unless the benchmark's protocol says otherwise.

        Args:
            role: "train", "val", "test" or "predict".
            samples: the split.
        """
        return samples

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

    val_classes: ValClasses = "novel"
    """What validation draws few-shot episodes of; benchmarks that hold base pairs out for it have the setting."""

    def choose_val_classes(self, val_classes: ValClasses) -> None:
        """Take the setting `val_classes` over.

        Raises:
            ConfigError: it is neither "base" nor "novel".
        """
        if val_classes not in ("base", "novel"):
            raise ConfigError(f"data.val_classes is {val_classes!r}; set it to base or novel")
        self.val_classes = val_classes

    def is_novel(self, role: str) -> bool:
        """Whether a role's episodes are of the fold's own classes: those of a test always, of training never.

        Args:
            role: "train", "val" or "test".
        """
        return role == "test" or (role == "val" and self.val_classes == "novel")

    def pairs_from(self, role: str) -> str:
        """Where the pairs of a role come from, for messages."""
        return f"the few-shot lists of {type(self).__name__}"

    def narrowed(self, split: str) -> bool:
        """Whether a split may lack images of the few-shot lists on purpose; else a pair without its image is an error.

        Args:
            split: name of the split.
        """
        return True

    def pairs(self, role: str) -> list[Pair]:
        """List the (image, class) pairs that few-shot episodes are made of.

        Args:
            role: "train" for pairs of the other folds' classes in the training split, "test" for those of the fold's
                own classes in the validation split, "val" for what `val_classes` says.

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
