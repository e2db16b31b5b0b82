"""ADE20K scene parsing (ADEChallengeData2016): all that is true of this data set and nothing else."""

from pathlib import Path

import numpy as np

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.base import ClassTable, Sample
from frugalseg.data.codes import MaskCode
from frugalseg.data.folders import Listing, locate, pair_up
from frugalseg.data.lists import read_text, read_text_file, split_ids
from frugalseg.data.module import SegmentationData
from frugalseg.errors import DatasetError, DatasetNotFoundError
from frugalseg.ops.palette import voc_palette

COUNTS = {"train": 20210, "val": 2000}
"""Published number of images per split."""
FOLDERS = {"train": "training", "val": "validation"}


def class_table(root: str | Path) -> ClassTable:
    """The classes of `ROOT/objectInfo150.txt` where it exists (a miniature world brings its own), else the 150.

    Args:
        root: folder ADEChallengeData2016; it need not exist.

    Raises:
        DatasetError: the file is no table of that form.
    """
    listed = Path(root) / "objectInfo150.txt"
    text = read_text_file(listed) if listed.is_file() else read_text("ade20k", "objectInfo150") or ""
    rows = [line.split("\t") for line in text.splitlines()[1:] if line.strip()]
    if not rows or any(len(row) < 5 or row[0].strip() != str(place) for place, row in enumerate(rows, 1)):
        raise DatasetError(f"{listed}: is not the tab-separated table Idx, Ratio, Train, Val, Name; unpack it again")
    # a name is a list of synonyms: the first one is the usual one
    names = tuple(row[4].split(",")[0].strip() for row in rows)
    return ClassTable(names, np.roll(voc_palette(), -1, axis=0), background=False)


def mask_code(classes: int) -> MaskCode:
    """Stored 0 is void, 1..K are the classes 0..K-1.

    Args:
        classes: K.
    """
    return MaskCode.of({0: IGNORE_INDEX, **{value: value - 1 for value in range(1, classes + 1)}})


def index(root: str | Path, split: str) -> list[Sample]:
    """List the samples of a split; opens no image.

    Args:
        root: folder ADEChallengeData2016.
        split: train (folder `training`), val (`validation`), or a list `ROOT/splits/<split>.txt` of ids.

    Returns:
        Samples by id, or in the list's order.

    Raises:
        DatasetNotFoundError: root or split is not there.
        DatasetError: images are missing.
    """
    root = locate(root, "images/training", "images/validation", give="the folder ADEChallengeData2016")
    ids = split_ids("ade20k", split, [root / "splits" / f"{split}.txt"])
    if ids is None:
        if split not in FOLDERS:
            raise DatasetNotFoundError(f"{root}/splits/{split}.txt: no such split; there are {', '.join(FOLDERS)}")
        # nothing was published but the folders themselves
        names = Listing().names(root / "images" / FOLDERS[split])
        ids = sorted(name.removesuffix(".jpg") for name in names if name.endswith(".jpg"))
    return pair_up(
        ids,
        lambda name: [root / "images" / FOLDERS[_part(name)] / f"{name}.jpg"],
        lambda name: [root / "annotations" / FOLDERS[_part(name)] / f"{name}.png"],
        f"split {split} of {root}",
        "unpack ADEChallengeData2016.zip again",
        mask_code(class_table(root).num_classes),
    )


def _part(name: str) -> str:
    """The split that an id such as ADE_val_00000001 says."""
    return "val" if name.startswith("ADE_val_") else "train"


class ADE20K(SegmentationData):
    """ADE20K scene parsing, 150 classes.

    - **Counts**: train 20,210, val 2,000 (test 3,352 without labels is another archive).
    - **Format**: `images/{training,validation}/ADE_{train,val}_<8 digits>.jpg`, some grey; sizes vary, the shorter side
      may be below 512. `annotations/...png`, mode L, 0 = void, 1..150 = classes; here 0..149 and 255.
    - **Classes**: 150 in the order of `objectInfo150.txt`, a long tail (wall 15.8 % of pixels); no background class.
    - **Licence**: images for non-commercial research.
    - **Citation**: Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017.
    - **Traps**: subtracting 1 from uint8 turns void into 255 by wrap-around only; void pixels are no class and count in
      no score; the full ADE20K of 2021 has colour-coded masks and is another data set.

    Args:
        root: folder ADEChallengeData2016.
        recipe: what an item is in training, validation and testing.
        **kwargs: see `SegmentationData`.
    """

    def describe(self) -> ClassTable:
        """Names of `objectInfo150.txt`."""
        return class_table(self.root)

    def index(self, split: str) -> list[Sample]:
        """List the samples of a split; see `index`."""
        return index(self.root, split)
