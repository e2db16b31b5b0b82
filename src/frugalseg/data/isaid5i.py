"""iSAID-5i: few-shot segmentation of aerial tiles, with the two protocols that circulate for 256-pixel tiles."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from frugalseg.data import folders
from frugalseg.data.base import ClassTable, Pair, Sample, first_five
from frugalseg.data.description import ValClasses
from frugalseg.data.episodes import Episodes
from frugalseg.data.isaid5i_lists import (
    COUNTS,
    FOLDS,
    PREPARE,
    Protocol,
    base_validation,
    fold_classes,
    list_path,
    lists_on_disk,
    pairs,
    training_tiles,
)
from frugalseg.data.lists import parse_pairs, read_text_file, split_ids
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Recipe
from frugalseg.errors import DatasetNotFoundError
from frugalseg.ops.palette import voc_palette

log = logging.getLogger(__name__)

__all__ = ["COUNTS", "FOLDS", "ISAID5i", "Protocol", "class_table", "fold_classes", "index", "pairs", "training_tiles"]

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

_TILES = ("train/semantic_png", "val/semantic_png")


def class_table() -> ClassTable:
    """Names and colours of the 16 classes."""
    palette = voc_palette()
    palette[: len(COLOURS)] = COLOURS
    return ClassTable(NAMES, palette)


def locate(root: str | Path) -> Path:
    """Check that a folder is an iSAID-5i root.

    Args:
        root: folder that should hold train/semantic_png or val/semantic_png.

    Raises:
        DatasetNotFoundError: it does not; says so where it holds whole scenes of iSAID.
    """
    path = Path(root)
    if not any((path / tiles).is_dir() for tiles in _TILES) and is_raw(path):
        raise DatasetNotFoundError(f"{root}: holds the scenes of iSAID, not tiles; {PREPARE.replace('RAW', str(root))}")
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
    ids = _ids(root, split)
    return folders.pair_up(
        ids,
        images=lambda name: [part / "images" / f"{name}.png" for part in parts],
        masks=lambda name: [part / "semantic_png" / f"{name}{end}.png" for part in parts for end in (SUFFIX, "")],
        where=f"split {split} of {root}",
        mend=_strangers(parts[0], ids) + f"unpack the tiles again, or {PREPARE.replace('ROOT', str(root))}",
    )


def _strangers(part: Path, ids: list[str]) -> str:
    """What tells of tiles that were cut in another way than a list, for messages."""
    if not ids or (part / "images" / f"{ids[0]}.png").is_file():  # the usual case, which takes no listing
        return ""
    names = sorted(path.stem for path in (part / "images").glob("*.png"))
    if not names or set(ids) & set(names):
        return ""
    return f"the {len(names)} tiles there, first {first_five(names)}, are on no list: of another size or step?; "


def _ids(root: Path, split: str) -> list[str]:
    own = root / "splits" / f"{split}.txt"
    if not own.is_file() and (lists := lists_on_disk(root, split)):
        ids = sorted({pair.id for path in lists for pair in parse_pairs(read_text_file(path), str(path))})
        log.info("%s: %d ids from %d lists in %s", split, len(ids), len(lists), lists[0].parent)
        return ids
    ids_or_none = split_ids("isaid5i", f"tiles256_{split}", [own])
    if ids_or_none is None:
        raise DatasetNotFoundError(f"{own}: no such split; packaged ones are {', '.join(COUNTS)}")
    return ids_or_none


class ISAID5i(SegmentationData):
    """iSAID-5i: 256-pixel tiles of iSAID's training and validation scenes, three folds of five classes.

    - **Counts**: train 18,076 tiles of 1,098 scenes, val 6,363 of 364. P1 trains on 19,142 / 17,197 / 20,125 pairs and
      tests 3,108 / 3,657 / 3,298; P2 trains on 9,298 / 9,658 / 10,053 tiles and tests 2,752 / 2,024 / 3,122.
    - **Held out**: `val_classes="base"` validates pairs of the ten other classes in val, without every tile that P1
      lists for a class of the fold: 4,675 / 4,664 / 4,241 pairs (P1) or 3,785 / 4,418 / 3,425 (P2), both on 3,353 /
      3,537 / 3,090 tiles. No tile of a test episode is among them. "novel" validates on the test pairs, as the field
      does.
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
        val_classes: "base" or "novel", what few-shot validation looks at.
        **kwargs: see `SegmentationData`.
    """

    def __init__(
        self,
        root: str | Path,
        recipe: Recipe,
        fold: int = 0,
        protocol: Protocol = "P1",
        val_classes: ValClasses = "base",
        **kwargs: Any,
    ) -> None:
        self.fold, self.protocol = fold, protocol
        fold_classes(fold)
        self.choose_val_classes(val_classes)
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

    def chosen(self, role: str, samples: list[Sample]) -> list[Sample]:
        """Leave out of P2's training what shows a class of the fold, whatever the recipe (`Episodes` has lists)."""
        if role != "train" or self.protocol != "P2" or isinstance(self.recipe, Episodes):
            return samples
        tiles = training_tiles(self.root, self.fold)
        return [sample for sample in samples if sample.id in tiles]

    def pairs(self, role: str) -> list[Pair]:
        """List the pairs of the other folds' classes in train (role "train"), else those that are evaluated in val."""
        if role == "val" and not self.is_novel(role):
            return base_validation(self.root, self.fold, self.protocol)
        training = role == "train"
        return pairs(self.root, "train" if training else "val", self.fold, self.protocol, novel=not training)

    def pairs_from(self, role: str) -> str:
        """The lists on disk, or the packaged ones."""
        split = "train" if role == "train" else "val"
        folds = [fold for fold in range(FOLDS) if (fold == self.fold) == self.is_novel(role)]
        paths = [list_path(self.root, split, fold) for fold in folds]
        return " and ".join(str(path) if path.is_file() else f"the packaged {path.name}" for path in paths)

    def narrowed(self, split: str) -> bool:
        """Whether the user has put a list of the split there."""
        return (self.root / "splits" / f"{split}.txt").is_file()
