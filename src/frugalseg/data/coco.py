"""COCO 2014 and 2017, COCO-Stuff 164k and COCO-20i: the data card and the data module."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from frugalseg.data.base import ClassTable, Pair, Sample
from frugalseg.data.coco_index import class_table, index
from frugalseg.data.coco_names import NAMES, Labels
from frugalseg.data.lists import packaged
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Recipe
from frugalseg.errors import ConfigError

COUNTS = {
    2014: {"train": 82081, "train_all": 82783, "val": 40504, "val_annotated": 40137, "val_part": 5000},
    2017: {"train": 118287, "val": 5000},
}
"""Published number of ids per year and split."""
FOLDS = 4


def fold_classes(fold: int, classes: int = len(NAMES)) -> tuple[int, ...]:
    """Class ids that a fold tests: fold + 1, fold + 5, ...

    Args:
        fold: 0 to 3.
        classes: C, number of foreground classes.

    Raises:
        ConfigError: there is no such fold.
    """
    if fold not in range(FOLDS):
        raise ConfigError(f"data.fold: {fold} is none of the {FOLDS} folds 0 to {FOLDS - 1} of COCO-20i")
    return tuple(range(fold + 1, classes + 1, FOLDS))


def coco20i(part: str, classes: tuple[int, ...]) -> list[Pair]:
    """The packaged pairs of COCO-20i.

    Args:
        part: train (images of train2014) or val (of val2014).
        classes: class ids, 1 to 80.
    """
    name = f"coco20i_hsnet_{'trn' if part == 'train' else 'val'}.npz"
    with (packaged() / "coco14" / name).open("rb") as stream, np.load(stream) as arrays:
        images = {c: arrays[f"c{c - 1:02d}"].tolist() for c in classes}
    return [Pair(f"COCO_{part}2014_{number:012d}", c) for c, numbers in images.items() for number in numbers]


class COCO(SegmentationData):
    """COCO 2014 and 2017 (80 objects), COCO-Stuff 164k (171, 27, 12 or 15 classes) and COCO-20i (few-shot folds).

    - **Counts**: 2014 train_all 82,783, train 82,081 (with an instance; what weakly supervised work trains on), val
      40,504, val_annotated 40,137, val_part 5,000 (scored during training); 2017 train 118,287, val 5,000: the same
      123,287 images, split anew. Any year with its json: train_annotated, val_annotated. Lists ROOT/splits/<split>.txt
      win, with bare numbers or full names.
    - **Format**: `train2014/COCO_train2014_<12 digits>.jpg`, `train2017/<12 digits>.jpg`, also below `coco2014/` or
      `images/`; `annotations/instances_train2014.json`; masks `SegmentationClass/train2014/<image>.png`, which
      `frugalseg data prepare coco` makes. COCO-Stuff: `stuffthingmaps/train2017/<12 digits>.png` or
      `annotations/train2017/...` (mmseg), mode L, value = label id - 1, 255 unlabeled.
    - **Classes**: 80 and the background, by rank of the category id; a json with other categories brings its own.
      COCO-Stuff has no background: 171, the 27 super-categories, or their 12 of things or 15 of stuff alone.
    - **Image-level labels**: every category annotated in the image, crowds too; a long tail (person to hair drier 757:1
      in HSNet's lists, which leave small objects out).
    - **COCO-20i**: fold k tests classes k + 1 + 4v; the pairs are HSNet's, of 2014, without images that show little of
      a class.
    - **Licence**: annotations CC BY 4.0; the images are under Flickr's terms.
    - **Citation**: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; Caesar et al., COCO-Stuff: Thing
      and Stuff Classes in Context, CVPR 2018; Nguyen and Todorovic, Feature Weighting and Boosting for Few-Shot
      Segmentation, ICCV 2019.
    - **Traps**: category ids run to 90 with ten gaps; some JPEGs are grey; 702 images of train2014 show no object;
      published masks differ in what lies on top and in crowds, and scores with them; the label array that goes about
      for CTI's COCO experiments is VOC's (12,031 x 20); COCO-Stuff's list of names is shifted by one from its values.

    Args:
        root: folder of the data set.
        recipe: what an item is in training, validation and testing.
        year: which split of the images.
        labels: which classes; all but "instances" are COCO-Stuff's and need year 2017.
        fold: fold of COCO-20i whose classes are tested; for few-shot recipes.
        tags: .npz with `ids` and `labels` (N, 80) that takes the place of the json's image-level labels.
        **kwargs: see `SegmentationData`.
    """

    def __init__(
        self,
        root: str | Path,
        recipe: Recipe,
        year: Literal[2014, 2017] = 2014,
        labels: Labels = "instances",
        fold: Literal[0, 1, 2, 3] = 0,
        tags: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        fold_classes(fold)
        if year not in COUNTS:
            raise ConfigError(f"data.year: {year} is neither 2014 nor 2017")
        if labels != "instances" and (year != 2017 or tags is not None):
            raise ConfigError(f"data.labels {labels}: COCO-Stuff needs data.year 2017 and takes no data.tags")
        self.year, self.labels, self.fold, self.tags = year, labels, int(fold), tags
        super().__init__(root, recipe, **kwargs)

    def describe(self) -> ClassTable:
        """Names of the instances json, else COCO's 80, or COCO-Stuff's."""
        return class_table(self.root, self.year, self.labels)

    def index(self, split: str) -> list[Sample]:
        """List the samples of a split; see `index`."""
        return index(self.root, split, self.year, self.labels, self.tags)

    def tags_from(self) -> str:
        """The instances json has them."""
        if self.labels != "instances":
            return "COCO-Stuff has none: set data.labels to instances"
        return f"unpack annotations_trainval{self.year}.zip in {self.root}, or set data.tags"

    def masks_from(self) -> str:
        """Masks of instances are made once; COCO-Stuff's are an archive."""
        if self.labels != "instances":
            return "unpack stuffthingmaps_trainval2017.zip in stuffthingmaps"
        folders = f"train{self.year} val{self.year}"
        return f"make them: frugalseg data prepare coco --root {self.root} --folders {folders}"

    @property
    def fold_classes(self) -> tuple[int, ...]:
        """Class ids that the fold tests."""
        return fold_classes(self.fold, self.classes.foreground)

    def pairs(self, role: str) -> list[Pair]:
        """Pairs of COCO-20i; where the json's classes are not COCO's, every class that it names in an image.

        Args:
            role: "train" for the other folds' classes in the training images, else the fold's in the validation images.

        Raises:
            ConfigError: not the year or the labels of COCO-20i.
            DatasetNotFoundError: other classes, but no json of the images.
        """
        if self.labels != "instances":
            raise ConfigError("COCO-20i has the labels of objects: set data.labels to instances")
        part, novel = ("train", False) if role == "train" else ("val", True)
        classes = tuple(c for c in range(1, self.num_classes) if (c in self.fold_classes) == novel)
        if self.class_names[1:] != NAMES:
            tags = {s.id: s.tags for s in self.samples(role)}
            return [Pair(name, tag + 1) for name, found in tags.items() for tag in found or () if tag + 1 in classes]
        if self.year != 2014:
            raise ConfigError("COCO-20i's lists are of the 2014 images: set data.year to 2014")
        return coco20i(part, classes)
