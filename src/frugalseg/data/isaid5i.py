"""iSAID-5i: few-shot segmentation of aerial tiles, with the two protocols that circulate for 256-pixel tiles."""

import gzip
import json
import logging
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from frugalseg.data import folders
from frugalseg.data.base import ClassTable, Pair, Sample
from frugalseg.data.lists import packaged, parse_pairs, read_ids, read_text_file, split_ids, split_pairs
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Recipe
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError
from frugalseg.ops.palette import voc_palette

log = logging.getLogger(__name__)

Protocol = Literal["P1", "P2"]

NAMES = (
    "background", "ship", "storage tank", "baseball diamond", "tennis court", "basketball court", "ground track field",
    "bridge", "large vehicle", "small vehicle", "helicopter", "swimming pool", "roundabout", "soccer ball field",
    "plane", "harbor",
)  # fmt: skip
COLOURS = np.array([
    (0, 0, 0), (0, 0, 63), (0, 63, 63), (0, 63, 0), (0, 63, 127), (0, 63, 191), (0, 63, 255), (0, 127, 63),
    (0, 127, 127), (0, 0, 127), (0, 0, 191), (0, 0, 255), (0, 191, 127), (0, 127, 191), (0, 127, 255), (0, 100, 155),
], np.uint8)  # fmt: skip
"""(16, 3) RGB of each class in iSAID's own masks."""
SUFFIX = "_instance_color_RGB"
"""What the name of a mask adds to its image's."""
COUNTS = {"train": 18076, "val": 6363}
"""Tiles per split."""
FOLDS = 3

_TILES = ("train/semantic_png", "val/semantic_png")
_PREPARE = "cut the tiles with: frugalseg data prepare isaid5i --raw RAW --root ROOT"


def class_table() -> ClassTable:
    """Names and colours of the 16 classes."""
    palette = voc_palette()
    palette[: len(COLOURS)] = COLOURS
    return ClassTable(NAMES, palette)


def fold_classes(fold: int) -> tuple[int, ...]:
    """The five class ids that a fold tests: 1-5, 6-10 or 11-15.

    Raises:
        ConfigError: there is no such fold.
    """
    if fold not in range(FOLDS):
        raise ConfigError(f"data.fold: {fold} is none of the {FOLDS} folds 0 to {FOLDS - 1} of iSAID-5i")
    return tuple(range(5 * fold + 1, 5 * fold + 6))


def locate(root: str | Path) -> Path:
    """Check that a folder is an iSAID-5i root.

    Args:
        root: folder that should hold train/semantic_png or val/semantic_png.

    Raises:
        DatasetNotFoundError: it does not; says so where it holds whole scenes of iSAID.
    """
    path = Path(root)
    if not any((path / tiles).is_dir() for tiles in _TILES) and is_raw(path):
        raise DatasetNotFoundError(
            f"{root}: holds the scenes of iSAID, not tiles; {_PREPARE.replace('RAW', str(root))}"
        )
    return folders.locate(root, *_TILES, give="the folder iSAID_patches of the release, or that of the cut tiles")


def is_raw(root: Path) -> bool:
    """Whether a folder holds iSAID as released: whole scenes with masks of colours."""
    splits = [root / split for split in COUNTS]
    return any(
        (split / "Semantic_masks").is_dir() or next((split / "images").glob(f"*{SUFFIX}.png"), None) is not None
        for split in splits
    )


def index(root: str | Path, split: str) -> list[Sample]:
    """List the tiles of a split; opens no image.

    The ids come from ROOT/splits/<split>.txt, else from all lists ROOT/<split>/<split>_list/split*_<split>.txt, else
    from the packaged list.

    Args:
        root: folder that holds {train,val}/{images,semantic_png}.
        split: train, val, or a list under ROOT/splits that names tiles of either.

    Returns:
        Samples in the list's order. Tags are None: the lists may leave small objects out, so they are no labels.

    Raises:
        DatasetNotFoundError: root or split is not there.
        DatasetError: the split is empty, or images on it are absent.
    """
    root = locate(root)
    parts = [root / part for part in dict.fromkeys((split, *COUNTS))]
    return folders.pair_up(
        _ids(root, split),
        images=lambda name: [part / "images" / f"{name}.png" for part in parts],
        masks=lambda name: [part / "semantic_png" / f"{name}{end}.png" for part in parts for end in (SUFFIX, "")],
        where=f"split {split} of {root}",
        mend=f"unpack the tiles again, or {_PREPARE.replace('ROOT', str(root))}",
    )


def _ids(root: Path, split: str) -> list[str]:
    own = root / "splits" / f"{split}.txt"
    if not own.is_file() and (lists := _lists_on_disk(root, split)):
        ids = sorted({pair.id for path in lists for pair in parse_pairs(read_text_file(path), str(path))})
        log.info("%s: %d ids from %d lists in %s", split, len(ids), len(lists), lists[0].parent)
        return ids
    ids_or_none = split_ids("isaid5i", f"tiles256_{split}", [own])
    if ids_or_none is None:
        raise DatasetNotFoundError(f"{own}: no such split; packaged ones are {', '.join(COUNTS)}")
    return ids_or_none


def _lists_on_disk(root: Path, split: str) -> list[Path]:
    return sorted((root / split / f"{split}_list").glob(f"split?_{split}.txt"))


def pairs(root: str | Path, split: str, fold: int, protocol: Protocol = "P1", novel: bool = False) -> list[Pair]:
    """List the (tile, class) pairs of a fold; the lists on disk win over the packaged ones.

    P1 takes SDM's lists as they are: training tiles may show the fold's classes, as background. P2 is DMNet's: a class
    counts with at least 2048 pixels, and training leaves every tile out that is listed for a class of the fold.

    Args:
        root: folder that holds train and val.
        split: train or val.
        fold: 0, 1 or 2.
        protocol: P1 or P2. Lists on disk hold P1's pairs, so P2 takes those of them that DMNet's lists have too; for
            tiles that are not the official ones there are none, and P2's size rule is left out, with a warning.
        novel: the pairs of the fold's classes, else those of the ten other classes.

    Raises:
        ConfigError: there is no such fold or protocol.
        DatasetError: a list is damaged or names a class of another fold.
    """
    root, wanted = Path(root), fold_classes(fold)
    if protocol not in ("P1", "P2"):
        raise ConfigError(f"data.protocol is {protocol}, but iSAID-5i has P1 and P2")
    others = [number for number in range(FOLDS) if number != fold]
    if protocol == "P1":
        return [pair for number in ([fold] if novel else others) for pair in _fold_pairs(root, split, number)]
    eligible = [pair for pair in _sized_pairs(root, split) if (pair.class_id in wanted) == novel]
    if novel:
        return eligible
    tiles = training_tiles(root, fold, split)
    return [pair for pair in eligible if pair.id in tiles]


def training_tiles(root: str | Path, fold: int, split: str = "train") -> set[str]:
    """Tiles that P2 trains a fold on: listed by P1 for the other folds, and not for this one.

    Args:
        root: folder that holds train and val.
        fold: 0, 1 or 2.
        split: whose lists.
    """
    listed = [{pair.id for pair in _fold_pairs(Path(root), split, number)} for number in range(FOLDS)]
    novel = listed.pop(fold)
    return set().union(*listed) - novel


def _fold_pairs(root: Path, split: str, fold: int) -> list[Pair]:
    path = root / split / f"{split}_list" / f"split{fold}_{split}.txt"
    found = split_pairs("isaid5i", f"p1_pairs_{'trn' if split == 'train' else split}_fold{fold}", [path])
    if wrong := next((pair for pair in found if pair.class_id not in fold_classes(fold)), None):
        raise DatasetError(
            f"{path}: names class {wrong.class_id} for {wrong.id}, but fold {fold} has {fold_classes(fold)}; is this"
            " the list of another fold or data set?"
        )
    return found


def _sized_pairs(root: Path, split: str) -> list[Pair]:
    sized = _packaged_sized_pairs(split)
    if not _lists_on_disk(root, split):
        return sized
    listed = [pair for fold in range(FOLDS) for pair in _fold_pairs(root, split, fold)]
    if {pair.id for pair in listed} <= set(read_ids("isaid5i", f"tiles256_{split}")):
        there = set(listed)
        return [pair for pair in sized if pair in there]
    log.warning("%s: P2's rule of 2048 pixels is not applied, the lists name other tiles than the official ones", root)
    return listed


@cache
def _packaged_sized_pairs(split: str) -> list[Pair]:
    packed = (packaged() / "isaid5i" / f"class_lists256_{split}.json.gz").read_bytes()
    by_class: dict[str, list[str]] = json.loads(gzip.decompress(packed))
    return [Pair(name, int(class_id)) for class_id, names in by_class.items() for name in names]


class ISAID5i(SegmentationData):
    """iSAID-5i: 256-pixel tiles of iSAID's training and validation scenes, three folds of five classes.

    - **Counts**: train 18,076 tiles of 1,098 scenes, val 6,363 of 364. P1 trains on 19,142 / 17,197 / 20,125 pairs and
      tests 3,108 / 3,657 / 3,298; P2 trains on 9,298 / 9,658 / 10,053 tiles and tests 2,752 / 2,024 / 3,122.
    - **Format**: `{train,val}/images/P####_y0_y1_x0_x1.png` and `semantic_png/<the same>_instance_color_RGB.png`,
      class ids 0-15 in spite of the name, 255 ignored; `<split>/<split>_list/split{0,1,2}_<split>.txt` with lines
      `<mask's name>_CC` win over the packaged lists. `frugalseg data prepare isaid5i` cuts such tiles from iSAID.
    - **Classes**: 15 and the background, `NAMES`; fold f tests 5f+1 to 5f+5.
    - **Image-level labels**: none. P2's lists want 2048 pixels of a class; what P1's want is not published, but the 42
      genuine tiles at hand are listed for every class that they show, down to 293 pixels.
    - **Licence**: academic use only; the images are DOTA's, under Google Earth's terms.
    - **Citation**: Waqas Zamir et al., iSAID, CVPR Workshops 2019; Yao et al., Scale-Aware Detailed Matching for
      Few-Shot Aerial Image Semantic Segmentation, TGRS 2022.
    - **Traps**: results of P1 and P2 (and R2Net's 512-pixel tiles) cannot be compared. Helicopter has ten (P1) or six
      (P2) tiles to test: fold 1 is noisy. Names put y before x. Class ids are neither DOTA's nor those of iSAID's json.
      The lists in SDM's repository are PASCAL's.

    Args:
        root: folder that holds train and val.
        recipe: what an item is in training, validation and testing.
        fold: 0, 1 or 2, whose five classes are tested.
        protocol: P1 or P2, see `pairs`.
        **kwargs: see `SegmentationData`.
    """

    def __init__(
        self, root: str | Path, recipe: Recipe, fold: int = 0, protocol: Protocol = "P1", **kwargs: Any
    ) -> None:
        self.fold, self.protocol = fold, protocol
        fold_classes(fold)
        super().__init__(root, recipe, **kwargs)

    @property
    def fold_classes(self) -> tuple[int, ...]:
        """The five class ids that the fold tests."""
        return fold_classes(self.fold)

    def describe(self) -> ClassTable:
        """Names and official colours."""
        return class_table()

    def index(self, split: str) -> list[Sample]:
        """List the tiles of a split; see `index`."""
        return index(self.root, split)

    def pairs(self, role: str) -> list[Pair]:
        """List the pairs of the other folds' classes in train (role "train"), else of the fold's classes in val."""
        training = role == "train"
        return pairs(self.root, "train" if training else "val", self.fold, self.protocol, novel=not training)
