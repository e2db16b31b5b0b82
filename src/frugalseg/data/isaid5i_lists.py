"""Which tiles of iSAID-5i form which episodes: the lists of P1 and P2, packaged and on disk."""

import gzip
import json
import logging
from functools import cache
from pathlib import Path
from typing import Literal

from frugalseg.data.base import Pair, first_five
from frugalseg.data.lists import packaged, parse_pairs, read_ids, read_text_file, split_pairs
from frugalseg.errors import ConfigError, DatasetError

log = logging.getLogger(__name__)

Protocol = Literal["P1", "P2"]
COUNTS = {"train": 18076, "val": 6363}
"""Tiles per split."""
FOLDS = 3
PREPARE = "cut the tiles with: frugalseg data prepare isaid5i --raw RAW --root ROOT"


def fold_classes(fold: int) -> tuple[int, ...]:
    """The five class ids that a fold tests: 1-5, 6-10 or 11-15.

    Raises:
        ConfigError: there is no such fold.
    """
    if fold not in range(FOLDS):
        raise ConfigError(f"data.fold: {fold} is none of the {FOLDS} folds 0 to {FOLDS - 1} of iSAID-5i")
    return tuple(range(5 * fold + 1, 5 * fold + 6))


def lists_on_disk(root: Path, split: str) -> list[Path]:
    """The lists that a release, or `data prepare --lists`, has brought for a split."""
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
            tiles that are not the official ones there are none. Of tiles that `frugalseg data prepare` has cut in
            another way, P2 takes all pairs, with a warning: dropping tiles is the rule that is left.
        novel: the pairs of the fold's classes, else those of the ten other classes.

    Raises:
        ConfigError: there is no such fold or protocol.
        DatasetError: a list is damaged or names a class of another fold; P1 with P2's lists in the place of its own, or
            P2 with lists of other tiles than the official ones.
    """
    root, wanted = Path(root), fold_classes(fold)
    if protocol not in ("P1", "P2"):
        raise ConfigError(f"data.protocol is {protocol}, but iSAID-5i has P1 and P2")
    others = [number for number in range(FOLDS) if number != fold]
    if protocol == "P1":
        _refuse_p2_lists(root, split)
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


def base_validation(root: str | Path, fold: int, protocol: Protocol = "P1") -> list[Pair]:
    """Pairs of val with base classes of a fold, without every tile that is listed (by P1) for a class of the fold.

    No tile of the test episodes is looked at when a checkpoint is chosen by them.

    Args:
        root: folder that holds train and val.
        fold: 0, 1 or 2.
        protocol: P1 or P2, see `pairs`, which names the errors too.
    """
    tiles = training_tiles(root, fold, "val")
    return [pair for pair in pairs(root, "val", fold, protocol) if pair.id in tiles]


def list_path(root: Path, split: str, fold: int) -> Path:
    """Where the list of a fold's own classes lies, if it does."""
    return root / split / f"{split}_list" / f"split{fold}_{split}.txt"


def _fold_pairs(root: Path, split: str, fold: int) -> list[Pair]:
    """P1's pairs of a fold: those on disk, unless these are P2's, which leave small objects out."""
    path = list_path(root, split, fold)
    on_disk = [] if _holds_p2(root, split, fold) else [path]
    found = split_pairs("isaid5i", f"p1_pairs_{'trn' if split == 'train' else split}_fold{fold}", on_disk)
    if wrong := next((pair for pair in found if pair.class_id not in fold_classes(fold)), None):
        raise DatasetError(
            f"{path}: names class {wrong.class_id} for {wrong.id}, but fold {fold} has {fold_classes(fold)}; is this"
            " the list of another fold or data set?"
        )
    return found


def _holds_p2(root: Path, split: str, fold: int) -> bool:
    """Whether the list on disk is exactly P2's: of all official tiles, classes from 2048 pixels on."""
    path = list_path(root, split, fold)
    if split not in COUNTS or not path.is_file():
        return False
    text, sized = read_text_file(path), _sized_of_fold(split, fold)
    # its length tells most lists apart, which is much faster than reading them
    return len(text.split()) == len(sized) and set(parse_pairs(text, str(path))) == sized


@cache
def _sized_of_fold(split: str, fold: int) -> frozenset[Pair]:
    return frozenset(pair for pair in _packaged_sized_pairs(split) if pair.class_id in fold_classes(fold))


def _refuse_p2_lists(root: Path, split: str) -> None:
    if wrong := [fold for fold in range(FOLDS) if _holds_p2(root, split, fold)]:
        path, count = list_path(root, split, wrong[0]), len(lists_on_disk(root, split))
        raise DatasetError(
            f"{path}: data.protocol is P1, but {len(wrong)} of {count} lists there hold exactly P2's pairs (from 2048"
            " pixels on); set data.protocol=P2, or restore the release's lists"
        )


def _sized_pairs(root: Path, split: str) -> list[Pair]:
    sized = _packaged_sized_pairs(split)
    if not (lists := lists_on_disk(root, split)):
        return sized
    there = {pair for fold in range(FOLDS) for pair in _fold_pairs(root, split, fold)}
    tiles, official = {pair.id for pair in there}, set(read_ids("isaid5i", f"tiles256_{split}"))
    if not (others := sorted(tiles - official)):
        return [pair for pair in sized if pair in there]
    if not (root / split / ".tiled").is_dir():  # the record of `frugalseg data prepare`: tiles of one's own, on purpose
        raise DatasetError(
            f"{lists[0].parent}: data.protocol is P2, whose lists are of the official tiles (256 px, step 206), but"
            f" {len(others)} of {len(tiles)} tiles on the lists there are none of them, first {first_five(others)}; set"
            f" data.protocol=P1, or {PREPARE.replace('ROOT', str(root))}"
        )
    log.warning("%s: P2's rule of 2048 pixels is left out, these tiles are not the official ones", lists[0].parent)
    return sorted(there)


@cache
def _packaged_sized_pairs(split: str) -> list[Pair]:
    packed = (packaged() / "isaid5i" / f"class_lists256_{split}.json.gz").read_bytes()
    by_class: dict[str, list[str]] = json.loads(gzip.decompress(packed))
    return [Pair(name, int(class_id)) for class_id, names in by_class.items() for name in names]
