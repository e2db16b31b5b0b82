"""Cityscapes, fine annotations: all that is true of this data set and nothing else."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.base import ClassTable, Sample, first_five
from frugalseg.data.codes import MaskCode
from frugalseg.data.folders import Listing, locate, pair_up
from frugalseg.data.lists import split_ids
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Recipe
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError

Labels = Literal["19", "27"]

LABELS = (
    ("unlabeled", 0, 0, 0), ("ego vehicle", 0, 0, 0), ("rectification border", 0, 0, 0), ("out of roi", 0, 0, 0),
    ("static", 0, 0, 0), ("dynamic", 111, 74, 0), ("ground", 81, 0, 81), ("road", 128, 64, 128),
    ("sidewalk", 244, 35, 232), ("parking", 250, 170, 160), ("rail track", 230, 150, 140), ("building", 70, 70, 70),
    ("wall", 102, 102, 156), ("fence", 190, 153, 153), ("guard rail", 180, 165, 180), ("bridge", 150, 100, 100),
    ("tunnel", 150, 120, 90), ("pole", 153, 153, 153), ("polegroup", 153, 153, 153), ("traffic light", 250, 170, 30),
    ("traffic sign", 220, 220, 0), ("vegetation", 107, 142, 35), ("terrain", 152, 251, 152), ("sky", 70, 130, 180),
    ("person", 220, 20, 60), ("rider", 255, 0, 0), ("car", 0, 0, 142), ("truck", 0, 0, 70), ("bus", 0, 60, 100),
    ("caravan", 0, 0, 90), ("trailer", 0, 0, 110), ("train", 0, 80, 100), ("motorcycle", 0, 0, 230),
    ("bicycle", 119, 11, 32),
)  # fmt: skip
"""Name and colour of label id 0, 1, ... 33 (cityscapesScripts); -1, the license plate, does not occur in the PNGs."""
TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the 19 classes that the benchmark scores, in the order of their train ids."""
UNSUPERVISED_IDS = tuple(range(7, 34))
"""Label ids of the 27 classes of unsupervised work (PiCIE, STEGO): label id - 7."""
COUNTS = {"train": 2975, "val": 500, "test": 1525}
"""Published number of images per split."""


def label_ids(labels: Labels) -> tuple[int, ...]:
    """Label ids in the order of the class ids.

    Args:
        labels: "19" or "27".

    Raises:
        ConfigError: another word.
    """
    if labels not in ("19", "27"):
        raise ConfigError(f"data.labels: {labels!r} is none of 19 (the benchmark) and 27 (unsupervised work)")
    return TRAIN_IDS if labels == "19" else UNSUPERVISED_IDS


def class_table(labels: Labels = "19") -> ClassTable:
    """Names and official colours.

    Args:
        labels: "19" or "27".
    """
    chosen = [LABELS[label] for label in label_ids(labels)]
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(chosen)] = [row[1:] for row in chosen]
    return ClassTable(tuple(row[0] for row in chosen), palette, background=False)


def mask_code(labels: Labels = "19") -> MaskCode:
    """Label ids 0..33 to class ids; those that are not scored, and 255 (license plate), are ignored.

    Args:
        labels: "19" or "27".
    """
    scored = {label: class_id for class_id, label in enumerate(label_ids(labels))}
    return MaskCode.of({**dict.fromkeys([*range(len(LABELS)), 255], IGNORE_INDEX), **scored})


def index(root: str | Path, split: str, labels: Labels = "19") -> list[Sample]:
    """List the samples of a split; opens no image.

    Args:
        root: folder that holds leftImg8bit and gtFine.
        split: train, val, test (its labels are dummies: no masks), or a list `ROOT/splits/<split>.txt` of ids such as
            aachen_000001_000019, in which images of all three folders may stand.
        labels: "19" or "27".

    Returns:
        Samples by city and frame, or in the list's order.

    Raises:
        DatasetNotFoundError: root or split is not there.
        DatasetError: no images, or images on the list are missing.
    """
    root = locate(root, "leftImg8bit", "gtFine", give="the folder that holds leftImg8bit and gtFine")
    listed = split_ids("cityscapes", split, [root / "splits" / f"{split}.txt"])
    # lists of others name files: leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png gtFine/...
    ids = listed and [name.removesuffix("_leftImg8bit") for name in listed]
    if ids is None:
        ids = frames(root / "leftImg8bit" / split, "_leftImg8bit.png")
        if not ids and (labelled := frames(root / "gtFine" / split, "_gtFine_labelIds.png")):
            raise DatasetError(
                f"{root}: split {split} is incomplete: labels of {len(labelled)} frames, first {labelled[0]}, but no"
                f" images in leftImg8bit/{split}; unpack leftImg8bit_trainvaltest.zip beside gtFine"
            )
        if not ids and not (root / "leftImg8bit" / split).is_dir():
            raise DatasetNotFoundError(f"{root}/leftImg8bit/{split}: no such split; there are {', '.join(COUNTS)}")
    folders = dict.fromkeys([split, "train", "val", "test"])
    return pair_up(
        ids,
        lambda name: [root / "leftImg8bit" / f / _city(name) / f"{name}_leftImg8bit.png" for f in folders],
        lambda name: [
            root / "gtFine" / f / _city(name) / f"{name}_gtFine_labelIds.png" for f in folders if f != "test"
        ],
        f"split {split} of {root}",
        f"unpack leftImg8bit_trainvaltest.zip there (folder leftImg8bit/{split})",
        mask_code(labels),
    )


def frames(folder: Path, suffix: str) -> list[str]:
    """Ids of the files `<city>/<id><suffix>` of a folder, sorted.

    Args:
        folder: such as leftImg8bit/train; it need not exist.
        suffix: such as _leftImg8bit.png.
    """
    listing = Listing()
    cities = [folder / city for city in sorted(listing.names(folder))]
    return [n.removesuffix(suffix) for city in cities for n in sorted(listing.names(city)) if n.endswith(suffix)]


def unpaired(root: str | Path) -> list[str]:
    """Say which frames have labels but no image.

    Args:
        root: folder that holds gtFine.

    Returns:
        One line per incomplete split.
    """
    lines = []
    for split in COUNTS:
        images = set(frames(Path(root) / "leftImg8bit" / split, "_leftImg8bit.png"))
        labels = frames(Path(root) / "gtFine" / split, "_gtFine_labelIds.png")
        if images and (bare := [name for name in labels if name not in images]):
            what = f"{split}: incomplete: {len(bare)} of {len(labels)} labelled frames have no image"
            lines.append(f"{what}, first {first_five(bare)}; unpack leftImg8bit_trainvaltest.zip again")
    return lines


def _city(name: str) -> str:
    return name.split("_")[0]


class Cityscapes(SegmentationData):
    """Cityscapes with fine annotations.

    - **Counts**: train 2,975, val 500, test 1,525 (labels withheld), all 2048x1024; scored at that size.
    - **Format**: `leftImg8bit/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png` and
      `gtFine/<split>/<city>/..._gtFine_labelIds.png` (mode L, label ids 0..33). Only `labelIds` are read: the
      `labelTrainIds` that other tools write beside them are not part of the archive.
    - **Classes**: 19 that the benchmark scores, or 27 for unsupervised work; all else is ignored, ego vehicle and
      rectification border too. No background class.
    - **Licence**: non-commercial use, after registration.
    - **Citation**: Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016.
    - **Traps**: label ids are not train ids (torchvision returns the former); `instanceIds` are 16-bit; the labels of
      the test split are dummies.

    Args:
        root: folder that holds leftImg8bit and gtFine.
        recipe: what an item is in training, validation and testing.
        labels: "19" or "27" classes.
        **kwargs: see `SegmentationData`.
    """

    def __init__(self, root: str | Path, recipe: Recipe, labels: Labels = "19", **kwargs: Any) -> None:
        self.labels: Labels = labels
        super().__init__(root, recipe, **kwargs)

    def describe(self) -> ClassTable:
        """19 or 27 classes."""
        return class_table(self.labels)

    def index(self, split: str) -> list[Sample]:
        """List the samples of a split; see `index`."""
        return index(self.root, split, self.labels)
