"""PASCAL VOC 2012 with the SBD masks (trainaug): all that is true of this data set and nothing else."""

import logging
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Literal

from frugalseg.data import folders
from frugalseg.data.base import ClassTable, Pair, Sample, first_five
from frugalseg.data.lists import packaged_splits, parse_ids, read_ids, read_labels, read_text_file, split_pairs
from frugalseg.data.module import SegmentationData
from frugalseg.data.recipes import Recipe
from frugalseg.data.sources import SOURCES
from frugalseg.errors import ConfigError, DatasetError, DatasetNotFoundError
from frugalseg.ops.palette import voc_palette

log = logging.getLogger(__name__)

Masks = Literal["SegmentationClass", "SegmentationClassAug"]

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
COUNTS = {"train": 1464, "trainaug": 10582, "trainval": 2913, "val": 1449, "test": 1456}
"""Published number of ids per split."""
CLASS_COUNTS = (590, 504, 705, 468, 714, 393, 1150, 1005, 1228, 267, 613, 1188, 445, 492, 4155, 522, 300, 649, 503, 567)
"""Images of trainaug per foreground class."""
FOLDS = 4
"""Folds of PASCAL-5i."""


def class_table(root: str | Path) -> ClassTable:
    """Names and palette: those of `ROOT/ImageSets/classes.txt` where it exists, else VOC's 21.

    Args:
        root: folder that holds JPEGImages; it need not exist.

    Raises:
        DatasetError: classes.txt names less than two classes, one twice, or more than 255, or is not UTF-8.
    """
    listed = Path(root) / "ImageSets" / "classes.txt"
    if not listed.is_file():
        return ClassTable(NAMES, voc_palette())
    names = tuple(line.strip() for line in read_text_file(listed).splitlines() if line.strip())
    if not 2 <= len(names) <= 255 or len(set(names)) < len(names):
        raise DatasetError(f"{listed}: must name 2 to 255 different classes, one per line, background first")
    return ClassTable(names, voc_palette())


def locate(root: str | Path) -> Path:
    """Check that a folder is a VOC2012 root.

    Args:
        root: folder that should hold JPEGImages.

    Raises:
        DatasetNotFoundError: it does not; the message names a folder nearby that does.
    """
    return folders.locate(root, "JPEGImages", give=f"the folder VOCdevkit/VOC2012 of {SOURCES['voc'][0].name}")


def split_ids(root: Path, split: str) -> tuple[list[str], Path | None]:
    """Ids of a split: the list on disk wins, else the packaged one.

    Args:
        root: folder that holds JPEGImages.
        split: name of the list without suffix.

    Returns:
        The ids, and the file they are from (None: packaged).

    Raises:
        DatasetNotFoundError: no list of that name.
        DatasetError: the list is empty or repeats ids.
    """
    listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    on_disk = listed if listed.is_file() else None
    known = packaged_splits("voc12")
    if on_disk is None and split not in known:
        raise DatasetNotFoundError(f"{listed}: no such split; packaged ones are {', '.join(known)}")
    ids = parse_ids(read_text_file(on_disk), str(on_disk)) if on_disk else read_ids("voc12", split)
    if not ids:
        raise DatasetError(f"{listed}: the split is empty; remove the file to use the packaged list, or fill it")
    log.info("%s: %d ids from %s", split, len(ids), on_disk or "the packaged list")
    return ids, on_disk


def index(root: str | Path, split: str, masks: Masks | None = None) -> list[Sample]:
    """List the samples of a split; reads lists and annotations, opens no image.

    Args:
        root: folder that holds JPEGImages.
        split: train, val, trainval, trainaug, aug_only, test, or a list under ROOT/ImageSets/Segmentation.
        masks: folder of masks; None for SegmentationClassAug with trainaug and aug_only, else SegmentationClass. A mask
            that is not there is None in its sample. `test` has neither masks nor tags.

    Returns:
        Samples in the list's order.

    Raises:
        DatasetNotFoundError: root or split is not there.
        DatasetError: the split is empty, or images on it are absent.
    """
    root = locate(root)
    ids, _ = split_ids(root, split)
    listing = folders.Listing()
    images = listing.names(root / "JPEGImages")
    if missing := [name for name in ids if f"{name}.jpg" not in images]:
        raise DatasetError(
            f"{root}/JPEGImages: {len(missing)} of the {len(ids)} images of split {split} are missing,"
            f" first {first_five(missing)}; unpack the archive again or put a shorter"
            f" ImageSets/Segmentation/{split}.txt there"
        )
    folder = root / (masks or mask_folder(split))
    there = listing.names(folder) if split != "test" else set()
    if not there and split != "test":
        log.info("%s: no masks, %s is absent or empty", split, folder)
    tags = {} if split == "test" else _tags(root, ids)
    return [
        Sample(
            id=name,
            image=root / "JPEGImages" / f"{name}.jpg",
            mask=folder / f"{name}.png" if f"{name}.png" in there else None,
            tags=tags.get(name),
        )
        for name in ids
    ]


def fold_classes(fold: int, foreground: int = 20) -> tuple[int, ...]:
    """Class ids that a fold of PASCAL-5i tests: 5 fold + 1 to 5 fold + 5.

    Args:
        fold: 0 to 3.
        foreground: C, number of foreground classes; a world with its own has C / 4 in each fold.

    Raises:
        ConfigError: another number.
    """
    if fold not in range(FOLDS):
        raise ConfigError(f"data.fold: {fold} is none of the {FOLDS} folds 0 to {FOLDS - 1} of PASCAL-5i")
    return tuple(range(foreground * fold // FOLDS + 1, foreground * (fold + 1) // FOLDS + 1))


def pairs(root: str | Path, fold: int, training: bool) -> list[Pair]:
    """(image, class) pairs of PASCAL-5i in the version of HSNet.

    Args:
        root: folder that holds JPEGImages; lists `ROOT/ImageSets/FewShot/{trn,val}_fold<f>.txt` win.
        fold: 0 to 3.
        training: the training pairs of the other folds' classes, else the validation pairs of the fold's own.

    Raises:
        ConfigError: no such fold.
        DatasetError: a list is damaged.
    """
    fold_classes(fold)
    folds, part = ([f for f in range(FOLDS) if f != fold], "trn") if training else ([fold], "val")
    names = [f"{part}_fold{f}" for f in folds]
    return [
        pair
        for name in names
        for pair in split_pairs("pascal5i", name, [Path(root) / "ImageSets" / "FewShot" / f"{name}.txt"])
    ]


def mask_folder(split: str) -> Masks:
    """The folder that holds a split's masks in the usual layout.

    Args:
        split: name of the split.
    """
    return "SegmentationClassAug" if split in ("trainaug", "aug_only") else "SegmentationClass"


def _tags(root: Path, ids: list[str]) -> dict[str, tuple[int, ...]]:
    # packaged labels first: they are read faster than 10,582 files. Other classes mean other data: annotations only
    own_classes = (root / "ImageSets" / "classes.txt").is_file()
    labels = {} if own_classes else read_labels("voc12")
    tags = {name: labels[name] for name in ids if name in labels}
    packaged = len(tags)
    names = class_table(root).names
    for name in ids:
        if name not in tags and (annotation := root / "Annotations" / f"{name}.xml").is_file():
            tags[name] = read_annotation(annotation, names)
    log.info("image-level labels: %d packaged, %d from Annotations, %d ids have none",
             packaged, len(tags) - packaged, len(ids) - len(tags))  # fmt: skip
    return tags


def read_annotation(path: Path, names: tuple[str, ...]) -> tuple[int, ...]:
    """Read the classes of an annotation; difficult objects count, as in the packaged labels.

    Args:
        path: XML file; `part`s of objects (head, hand, foot) are not classes.
        names: class names, background first.

    Returns:
        Sorted 0-based foreground class indices.

    Raises:
        DatasetError: not XML, or a name that is no class.
    """
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314 - expat limits entity expansion; nothing external is loaded
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise DatasetError(f"{path}: is not XML ({error}); unpack the archive again") from None
    found = {(item.findtext("name") or "").strip() for item in root.findall("object")}
    if unknown := found - set(names[1:]):
        raise DatasetError(
            f"{path}: {', '.join(sorted(unknown))!r} is no class of this data set; mend ImageSets/classes.txt"
        )
    return tuple(sorted(names.index(name) - 1 for name in found))


class VOC(SegmentationData):
    """PASCAL VOC 2012 segmentation, with SBD's masks as `trainaug`.

    - **Counts**: train 1,464, val 1,449, trainval 2,913, test 1,456 (no labels), trainaug 10,582 = (SBD train +
      SBD val + VOC train) - VOC val; 1.6 labels per image, person 4,155 images to cow 267.
    - **Format**: `JPEGImages/<id>.jpg`; `SegmentationClass/<id>.png` (official, 2,913) and
      `SegmentationClassAug/<id>.png` (added by hand, 12,031), modes P or L; 0 background, 1-20 classes,
      255 void; `Annotations/<id>.xml`; `ImageSets/Segmentation/<split>.txt`, which wins over the packaged list.
    - **Classes**: 20 and the background, `NAMES`. A folder with `ImageSets/classes.txt` (miniature worlds) brings its
      own, and then its labels come from `Annotations` alone.
    - **Image-level labels**: the packaged array of 12,031 ids (train, val and SBD), else `Annotations`. 817 trainaug
      images carry a label whose class has no pixel in the mask.
    - **Licence**: research use; the images are under Flickr's terms.
    - **Citation**: Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2015; Hariharan et al., Semantic
      Contours from Inverse Detectors, ICCV 2011.
    - **Traps**: SBD masks have almost no void border (0.8 % of pixels against 5.5 %) and fill bicycle wheels (0.83 % of
      pixels against 0.31 %); some lists start with a slash and name another masks folder than they mean; copies with
      images stretched to 640x480 are about and are refused, since their masks are not.

    Args:
        root: folder VOCdevkit/VOC2012.
        recipe: what an item is in training, validation and testing.
        masks: folder of masks for all splits; None for SegmentationClassAug with trainaug, else SegmentationClass.
        fold: fold of PASCAL-5i, 0 to 3, for recipe `Episodes`; train those on split trainaug.
        **kwargs: see `SegmentationData`.
    """

    def __init__(
        self,
        root: str | Path,
        recipe: Recipe,
        masks: Masks | None = None,
        fold: int = 0,
        **kwargs: Any,
    ) -> None:
        self.masks: Masks | None = masks
        self.fold = fold
        fold_classes(fold)
        super().__init__(root, recipe, **kwargs)

    def describe(self) -> ClassTable:
        """Names of `ImageSets/classes.txt` where it exists, else VOC's."""
        return class_table(self.root)

    def index(self, split: str) -> list[Sample]:
        """List the samples of a split; see `index`."""
        return index(self.root, split, self.masks)

    def tags_from(self) -> str:
        """Ids without a packaged label have annotations."""
        return "add their Annotations/<id>.xml"

    def masks_from(self) -> str:
        """SBD's masks are converted."""
        return "add the masks (SegmentationClassAug: frugalseg data prepare sbd), set data.masks"

    @property
    def fold_classes(self) -> tuple[int, ...]:
        """Class ids that the fold tests: 5 fold + 1 to 5 fold + 5."""
        return fold_classes(self.fold, self.classes.foreground)

    def pairs(self, role: str) -> list[Pair]:
        """Pairs of PASCAL-5i, see `pairs`; where the classes are not VOC's, every image-level label is a pair."""
        training = role == "train"
        if self.class_names != NAMES:
            labels = [Pair(s.id, tag + 1) for s in self.samples(role) for tag in s.tags or ()]
            return [pair for pair in labels if (pair.class_id in self.fold_classes) != training]
        return pairs(self.root, self.fold, training)
