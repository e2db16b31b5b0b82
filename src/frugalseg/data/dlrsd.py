"""DLRSD: dense labels of the UC Merced images, with the two few-shot protocols that go by its name."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from frugalseg.data import folders
from frugalseg.data.base import ClassTable, Pair, Sample
from frugalseg.data.codes import MaskCode
from frugalseg.data.description import ValClasses
from frugalseg.data.episodes import Episodes
from frugalseg.data.io import image_size
from frugalseg.data.lists import split_ids, split_pairs
from frugalseg.data.module import SegmentationData
from frugalseg.data.parallel import Progress
from frugalseg.data.recipes import Recipe
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError
from frugalseg.ops.palette import voc_palette

Protocol = Literal["D1", "D2"]
Sizes = dict[tuple[int, int], list[str]]

NAMES = (
    "airplane", "bare soil", "buildings", "cars", "chaparral", "court", "dock", "field", "grass", "mobile home",
    "pavement", "sand", "sea", "ship", "tanks", "trees", "water",
)  # fmt: skip
COLOURS = np.array([
    (166, 202, 240), (128, 128, 0), (0, 0, 128), (255, 0, 0), (0, 128, 0), (128, 0, 0), (255, 233, 233),
    (160, 160, 164), (0, 128, 128), (90, 87, 255), (255, 255, 0), (255, 192, 0), (0, 0, 255), (255, 0, 192),
    (128, 0, 128), (0, 255, 0), (0, 255, 255),
], np.uint8)  # fmt: skip
"""(17, 3) RGB of each class."""
COUNTS = {"train": 1680, "val": 420, "all": 2100}
"""Images per split; there is no official one, train and val are ours."""
SIDE = 256
"""Nominal height and width; a few UC Merced images are some pixels smaller."""

UNLABELLED = (0, 18)
"""Stored values that mean no label in some copies; the release has neither."""
CODE = MaskCode.of(
    {stored + 1: stored for stored in range(len(NAMES))} | dict.fromkeys(UNLABELLED, 255),
    colours=np.concatenate([np.zeros((1, 3), np.uint8), COLOURS]),  # row = stored value; black is the unlabelled 0
    slack=16,  # labels may be 256x256 where the image is not; image sides of 247 and more have been seen
)
"""Stored values are 1..17, class ids 0..16."""

FOLDS: dict[Protocol, tuple[tuple[int, ...], ...]] = {
    "D1": ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11, 12, 13, 14)),
    "D2": ((0, 1, 2, 3, 4), (5, 6, 8, 9, 10), (11, 13, 14, 15, 16)),
}
"""Class ids that each fold tests."""

_ROOTS = ("UCMerced_LandUse/Images", "DLRSD/Images")


def class_table() -> ClassTable:
    """Names and colours of the 17 classes; there is no background."""
    palette = voc_palette()
    palette[: len(COLOURS)] = COLOURS
    return ClassTable(NAMES, palette, background=False)


def fold_classes(fold: int, protocol: Protocol = "D1") -> tuple[int, ...]:
    """The five class ids (0..16) that a fold tests.

    Raises:
        ConfigError: there is no such fold or protocol.
    """
    if protocol not in FOLDS or fold not in range(3):
        raise ConfigError(f"data.protocol {protocol} and data.fold {fold}: DLRSD has D1 and D2, with folds 0, 1 and 2")
    return FOLDS[protocol][fold]


def index(root: str | Path, split: str) -> list[Sample]:
    """List the images of a split; opens none.

    Args:
        root: folder that holds UCMerced_LandUse and DLRSD.
        split: train or val (ROOT/splits/<split>.txt, else the packaged 80/20 split, stratified by folder), all (both),
            or a list under ROOT/splits.

    Returns:
        Samples in the list's order. Masks are stored 1-based, see `CODE`; a mask whose sides differ from its image's by
        at most 16 pixels is stretched. Tags are None.

    Raises:
        DatasetNotFoundError: root or split is not there.
        DatasetError: the split is empty, or images on it are absent.
    """
    root = folders.locate(root, *_ROOTS, give="the folder that holds UCMerced_LandUse and DLRSD")
    scenes, labels = root / "UCMerced_LandUse" / "Images", root / "DLRSD"

    def images(name: str) -> list[Path]:
        places = [scenes / name[:-2] / name, labels / "Images" / name]
        return [place.with_name(f"{name}{end}") for place in places for end in (".tif", ".png", ".jpg")]

    def masks(name: str) -> list[Path]:
        places = [labels / folder / name[:-2] / name for folder in ("Images", "Labels")]
        return [place.with_name(f"{name}{end}") for place in places for end in (".png", ".tif")]

    mend = f"unpack UCMerced_LandUse.zip in {root} again, or put a shorter splits/{split}.txt there"
    return folders.pair_up(_ids(root, split), images, masks, f"split {split} of {root}", mend, CODE)


def _ids(root: Path, split: str) -> list[str]:
    path = root / "splits" / f"{split}.txt"
    if split == "all" and not path.is_file():
        return sorted({*_ids(root, "train"), *_ids(root, "val")})
    if (ids := split_ids("dlrsd", split, [path])) is None:
        raise DatasetNotFoundError(f"{path}: no such split; known ones are {', '.join(COUNTS)}")
    return ids


def pairs(root: str | Path, fold: int, protocol: Protocol = "D1", novel: bool = False) -> list[Pair]:
    """List the (image, class) pairs of a fold.

    ROOT/lists/{d1,d2}_pairs_{trn,val}_fold{f}.txt win over the packaged lists and number the classes as these do: D1 by
    the stored values 1..17, D2 by 1..15 without field and sea.

    Args:
        root: folder that holds UCMerced_LandUse and DLRSD.
        fold: 0, 1 or 2.
        protocol: D1 (SCCNet; the same images for training and test, only the classes differ) or D2 (PCFNet).
        novel: the test pairs of the fold's classes, else the training pairs of the other ten.

    Returns:
        Pairs with class ids as in decoded masks, 0..16.

    Raises:
        ConfigError: there is no such fold or protocol.
        DatasetError: a list is damaged or names a class of another fold.
    """
    fold_classes(fold, protocol)
    wanted = [number for number in range(3) if (number == fold) == novel]
    return [pair for number in wanted for pair in fold_pairs(root, number, protocol, "val" if novel else "trn")]


def held_out(root: str | Path) -> set[str]:
    """Images that validation on base classes keeps from training: the split val, on disk or packaged."""
    return set(_ids(Path(root), "val"))


def base_validation(root: str | Path, fold: int, protocol: Protocol = "D1") -> list[Pair]:
    """Pairs of a fold's base classes on the images that are held out; arguments, result and errors as for `pairs`.

    D1's training and test lists are the same, so the training lists are taken; of D2 both.
    """
    fold_classes(fold, protocol)
    parts: tuple[Literal["trn", "val"], ...] = ("trn",) if protocol == "D1" else ("trn", "val")
    listed = [p for part in parts for n in range(3) if n != fold for p in fold_pairs(root, n, protocol, part)]
    images = held_out(root)
    return [pair for pair in dict.fromkeys(listed) if pair.id in images]  # own lists may overlap


def fold_pairs(root: str | Path, fold: int, protocol: Protocol, part: Literal["trn", "val"]) -> list[Pair]:
    """Read the list of one fold's classes; arguments, result and errors as for `pairs`."""
    name, classes = f"{protocol.lower()}_pairs_{part}_fold{fold}", fold_classes(fold, protocol)
    path = Path(root) / "lists" / f"{name}.txt"
    own = sorted(path.parent.glob("*_pairs_*.txt"))
    if own and not any(other.name.startswith(protocol.lower()) for other in own):
        # images of its own, so the packaged lists would name the wrong classes without a word
        raise DatasetError(f"{path.parent}: has lists, but none of protocol {protocol}; add {path.name} and the others")
    found = split_pairs("dlrsd", name, [path])
    numbers = {c + 1: c for c in range(len(NAMES))}
    if protocol == "D2":
        kept = [c for five in FOLDS["D2"] for c in five]
        numbers = dict(enumerate(kept, 1))
    if wrong := next((pair for pair in found if numbers.get(pair.class_id) not in classes), None):
        listed = sorted(number for number, c in numbers.items() if c in classes)
        raise DatasetError(
            f"{path}: names class {wrong.class_id} for {wrong.id}, but fold {fold} of {protocol} has {listed}; is this"
            " the list of another fold or protocol?"
        )
    return [Pair(pair.id, numbers[pair.class_id]) for pair in found]


def odd_sizes(root: str | Path, split: str = "all", progress: Progress | None = None) -> Sizes:
    """Find the images that are not 256x256; reads headers only.

    Args:
        root: folder that holds UCMerced_LandUse and DLRSD.
        split: see `index`.
        progress: called with (images done, images in all).

    Returns:
        (height, width) -> ids.

    Raises:
        ImageError: a file is no image.
    """
    found: Sizes = {}
    samples = index(root, split)
    for done, sample in enumerate(samples, 1):
        if (size := image_size(sample.image)) != (SIDE, SIDE):
            found.setdefault(size, []).append(sample.id)
        if progress:
            progress(done, len(samples))
    return found


class DLRSD(SegmentationData):
    """DLRSD: 2,100 UC Merced images (21 folders of 100), each pixel labelled with one of 17 classes.

    - **Counts**: 2,100 images; no official split. Ours: train 1,680, val 420, 80/20 in each folder. D1 has 2,580 /
      1,387 / 1,926 pairs per fold, for training and test alike; D2 1,808 / 1,832 / 1,208 and 772 / 783 / 515.
    - **Held out**: `val_classes="base"` keeps the 420 images of split val from training and validates base classes on
      them. D1 then trains on 2,646 / 3,626 / 3,184 of 3,313 / 4,506 / 3,967 pairs and validates the other 667 / 880 /
      783 (on 367 / 376 / 365 images, of which 263 / 232 / 282 are listed for the fold's classes too, so are tested);
      D2 trains on 2,440 / 2,433 / 2,929 of 3,040 / 3,016 / 3,640 and validates 877 / 850 / 1,023 (on 380 / 390 / 358
      images, 123 / 136 / 90 of them tested). "novel" trains on all pairs and validates on the test pairs, as the field
      does.
    - **Format**: `UCMerced_LandUse/Images/<folder>/<folder>NN.tif`, nominally 256x256 (also png, jpg, or all in
      `DLRSD/Images`); labels `DLRSD/Images/<folder>/<folder>NN.png` (also tif, or under `DLRSD/Labels`), modes P, L or
      RGB, values 1-17. `splits/<split>.txt` and `lists/d1_pairs_trn_fold0.txt` and the like win over packaged lists.
    - **Classes**: 17, `NAMES`, and no background: class id = stored value - 1. 0 and 18 are read as unlabelled.
    - **Few-shot protocols**: D1 (SCCNet, HRL) leaves out trees and water, D2 (PCFNet, TBRNet, "DLRSD-5i") field and
      sea; name the classes with every result. With `Episodes` the protocol's lists choose among all images: the splits
      train and val then stand for `all`.
    - **Licence**: research use; the images are USGS's, public domain.
    - **Citation**: Shao, Yang and Zhou, Performance Evaluation of Single-Label and Multi-Label Remote Sensing Image
      Retrieval Using a Dense Labeling Dataset, Remote Sensing 2018; Yang and Newsam, Bag-of-Visual-Words and Spatial
      Extensions for Land-Use Classification, GIS 2010.
    - **Traps**: some images are not 256x256 (`odd_sizes`); training images of both protocols show the tested classes,
      as background; labels that were re-saved as JPEG have lost their ids and are refused.

    Args:
        root: folder that holds UCMerced_LandUse and DLRSD.
        recipe: what an item is in training, validation and testing.
        fold: 0, 1 or 2, whose five classes are tested; for `Episodes`.
        protocol: D1 or D2, see `pairs`.
        val_classes: "base" or "novel", what few-shot validation looks at.
        **kwargs: see `SegmentationData`.
    """

    def __init__(
        self,
        root: str | Path,
        recipe: Recipe,
        fold: int = 0,
        protocol: Protocol = "D1",
        val_classes: ValClasses = "base",
        **kwargs: Any,
    ) -> None:
        self.fold, self.protocol = fold, protocol
        fold_classes(fold, protocol)
        self.choose_val_classes(val_classes)
        super().__init__(root, recipe, **kwargs)
        if isinstance(recipe, Episodes):
            of_lists = {"train": "all", "val": "all" if val_classes == "novel" else "val", "test": "all"}
            self.splits |= {role: split for role, split in of_lists.items() if self.splits[role] in ("train", "val")}

    @property
    def fold_classes(self) -> tuple[int, ...]:
        """The five class ids that the fold tests."""
        return fold_classes(self.fold, self.protocol)

    def describe(self) -> ClassTable:
        """Names and colours; no background."""
        return class_table()

    def index(self, split: str) -> list[Sample]:
        """List the images of a split; see `index`."""
        return index(self.root, split)

    def pairs(self, role: str) -> list[Pair]:
        """List the pairs of the other folds' classes (role "train"), else those that are evaluated; see `pairs`."""
        if role == "val" and not self.is_novel(role):
            return base_validation(self.root, self.fold, self.protocol)
        found = pairs(self.root, self.fold, self.protocol, novel=role != "train")
        unseen = held_out(self.root) if role == "train" and self.val_classes == "base" else set()
        return [pair for pair in found if pair.id not in unseen]

    def pairs_from(self, role: str) -> str:
        """The lists on disk, or the packaged ones."""
        lists = sorted((self.root / "lists").glob(f"{self.protocol.lower()}_pairs_*.txt"))
        return str(self.root / "lists") if lists else f"the packaged {self.protocol} lists"

    def narrowed(self, split: str) -> bool:
        """Whether the user has put a list of the split, or of what it is put together from, there."""
        names = COUNTS if split == "all" else [split]
        return any((self.root / "splits" / f"{name}.txt").is_file() for name in names)
