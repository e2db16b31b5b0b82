"""A user's own folder of images, with whatever labels it has."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frugalseg.data import settings
from frugalseg.data.base import ClassTable, Pair, Sample
from frugalseg.data.folder_classes import Classes
from frugalseg.data.folder_files import MASKS, TAGS, find_layout
from frugalseg.data.folder_files import files_digest as digest_of_files
from frugalseg.data.folder_index import Index, read_words, refuse_colours
from frugalseg.data.folder_tags import TagTable
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Recipe
from frugalseg.errors import ConfigError, DatasetError
from frugalseg.ops.palette import voc_palette

log = logging.getLogger(__name__)

PARTS = ("image_dir", "mask_dir", "tags_file", "classes_file")
"""Settings that say where the parts of a folder are."""


class Folder(SegmentationData):
    """Your own images, with the labels that you have: tags, masks, both or none.

    - **Counts**: whatever is there. `frugalseg data check folder --root ROOT` counts it and finds what is wrong.
    - **Format**: images (jpg, jpeg, png, webp, bmp, tif, tiff; upper or lower case) at any depth in `ROOT/images`, or
      in ROOT itself where there is no such folder. `ROOT/masks/<same path>.png` (tif, bmp): one class id per pixel
      (modes P and L), or colours that the file of classes explains. `ROOT/tags.csv`: `image,tags` with rows such as
      `cats/1.jpg,cat;sofa`, or `image,cat,sofa` with rows such as `cats/1.jpg,1,0`. An id is the path below the images
      without suffix, `__` for slashes.
    - **Classes**: `ROOT/classes.txt` (one a line), or `ROOT/classes.csv` or `palette.csv` (`name` or `name,r,g,b`);
      id 0 is the background, which need not be named; a last row `ignore` of a CSV with colours is what counts nowhere.
      With no such file the classes are the tags, sorted. At most 254 and the background.
    - **Splits**: `ROOT/splits/<split>.txt` (paths or ids); if only one of train and val has a list, the other is the
      rest. Else folders `images/train` and `images/val`; else val is a share `val_share` drawn by the names, which the
      log says. There are also `all`, `tagged` (with at least one tag) and `masked` (with a mask).
    - **Few-shot folds** (`Episodes`): the classes in their order, cut into `folds` parts; pairs are images and their
      tags, so masks alone need `frugalseg data prepare folder --root ROOT`, which writes tags.csv from them.
    - **Licence, citation**: those of the folder.
    - **Traps**: masks that count classes from 0 without a background need `background: false`, else every class is off
      by one. JPEG masks have lost their ids, and are not taken for masks. Images are read as they are stored: EXIF
      rotation is not applied, since masks are not rotated either. A new tag changes the ids of those that sort behind
      it: write `classes.txt` before masks are painted or nets trained.

    Args:
        root: the folder.
        recipe: what an item is in training, validation and testing.
        image_dir: folder of images below it; None for `images` where it is there, else the root; "" for the root.
        mask_dir: folder of masks below it; None for `masks` where it is there; "" for none.
        tags_file: CSV of image-level labels below it; None for `tags.csv` where it is there; "" for none.
        classes_file: file of class names below it; None for the usual one, see above; "" for none.
        background: whether id 0 is the background. Without, there are no tags, and masks count classes from 0.
        val_share: part of the images that val gets where nothing else says which.
        split_seed: of that draw.
        fold: whose classes are tested, for recipe `Episodes`.
        folds: number of parts that the classes are cut into.
        **kwargs: see `SegmentationData`.
    """

    def __init__(
        self,
        root: str | Path,
        recipe: Recipe,
        image_dir: str | None = None,
        mask_dir: str | None = None,
        tags_file: str | None = None,
        classes_file: str | None = None,
        background: bool = True,
        val_share: float = 0.2,
        split_seed: int = 0,
        fold: int = 0,
        folds: int = 4,
        **kwargs: Any,
    ) -> None:
        settings.probability("data.val_share", val_share)
        settings.at_least("data.folds", folds, 2)
        if fold not in range(folds):
            raise ConfigError(f"data.fold: {fold} is none of the {folds} folds 0 to {folds - 1}; mend it or data.folds")
        self.parts = dict(zip(PARTS, (image_dir, mask_dir, tags_file, classes_file), strict=True))
        self.background, self.val_share, self.split_seed = background, val_share, split_seed
        self.fold, self.folds = fold, folds
        self._words: tuple[Classes, TagTable | None] | None = None
        self._index: Index | None = None
        super().__init__(root, recipe, **kwargs)

    def describe(self) -> ClassTable:
        """Names of the file of classes, else the tags.

        Raises:
            DatasetNotFoundError: a file that a setting names is not there.
            DatasetError: a file is wrong, or the recipe needs tags or classes that are not there.
        """
        if not self.root.is_dir():
            return ClassTable(("background",) if self.background else (), voc_palette(), self.background)
        self._words = classes, tags = read_words(find_layout(self.root, **self.parts), self.background)
        if self.recipe.needs_tags and (tags is None or not classes.table.foreground):
            raise DatasetError(
                f"{self.root}: has no tags, which {type(self.recipe).__name__} needs; {self.tags_from()}"
            )
        if self.recipe.needs_masks and not classes.table.foreground:
            raise DatasetError(f"{self.root}: its classes have no names; write classes.txt there, one name a line")
        return classes.table

    def index(self, split: str) -> list[Sample]:
        """List the samples of a split; opens one mask.

        Args:
            split: see the class; "" is empty.

        Raises:
            DatasetNotFoundError: the root, or what a setting names, is not there.
            DatasetError: no images, or tags, masks, classes or a list that do not fit them.
        """
        if not split:
            return []
        if self._index is None:
            layout = find_layout(self.root, **self.parts)
            self._index = Index(layout, *(self._words or read_words(layout, self.background)))
        found = self._index.samples(split, self.val_share, self.split_seed)
        refuse_colours(found, self.root / "palette.csv")
        if self.recipe.needs_masks and self.classes.foreground == 0:
            raise DatasetError(
                f"{self.root}: its classes have no names; write them into {self.root}/classes.txt, one a line"
            )
        return found

    def tags_from(self) -> str:
        """They come from one file; or they are left out."""
        path = self.root / (self.parts["tags_file"] or TAGS)
        return f"add {path} (header image,tags) with their rows, or take split tagged"

    def masks_from(self) -> str:
        """They have the path of their image; or they are left out."""
        return (
            f"add them as {self.root / (self.parts['mask_dir'] or MASKS)}/<path of the image>.png, or take split masked"
        )

    @property
    def fold_classes(self) -> tuple[int, ...]:
        """Class ids that the fold tests: the fold-th of `folds` parts of the foreground, in the order of ids."""
        count, first = self.classes.foreground, int(self.classes.background)
        return tuple(range(first + count * self.fold // self.folds, first + count * (self.fold + 1) // self.folds))

    def pairs(self, role: str) -> list[Pair]:
        """Pairs of images and their tags: of the fold's classes, or in training of all others.

        Args:
            role: "train", "val" or "test".

        Raises:
            ConfigError: less classes than folds.
            DatasetError: there are no tags.
        """
        if self.classes.foreground < self.folds:
            raise ConfigError(
                f"data.folds: {self.classes.foreground} classes cannot be cut into {self.folds} folds; set it to 2"
                " up to the number of classes"
            )
        samples, tested = self.samples(role), set(self.fold_classes)
        if all(sample.tags is None for sample in samples):
            raise DatasetError(
                f"{self.root}: Episodes needs to know which image shows which class: add {TAGS}, or let `frugalseg data"
                f" prepare folder --root {self.root}` write it from the masks"
            )
        found = [Pair(sample.id, tag + 1) for sample in samples for tag in sample.tags or ()]
        return [pair for pair in found if (pair.class_id in tested) != (role == "train")]

    def pairs_from(self, role: str) -> str:
        """The tags."""
        return str(self.root / (self.parts["tags_file"] or TAGS))

    @staticmethod
    def input_digest(init_args: Mapping[str, Any]) -> str:
        """Digest of tags, classes, and names and sizes of images and masks, on which it hangs whether a run is done.

        Args:
            init_args: resolved settings of the data.

        Raises:
            DatasetNotFoundError: the root, or what a setting names, is not there.
            DatasetError: no images.
        """
        return digest_of_files(find_layout(init_args["root"], **{part: init_args.get(part) for part in PARTS}))
