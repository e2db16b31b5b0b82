"""Where the images, masks and labels of COCO 2014, COCO 2017 and COCO-Stuff 164k are."""

import logging
from pathlib import Path

from frugalseg.data.base import ClassTable, Sample
from frugalseg.data.coco_names import CATEGORY_IDS, NAMES, Labels, stuff_code, stuff_table
from frugalseg.data.coco_tags import Instances, annotation_file, load_instances
from frugalseg.data.folders import Listing, locate, pair_up
from frugalseg.data.lists import split_ids
from frugalseg.data.tags import read_tags
from frugalseg.errors import DatasetError, DatasetNotFoundError
from frugalseg.ops.palette import voc_palette

log = logging.getLogger(__name__)

SPLITS = ("train", "train_all", "train_annotated", "val", "val_all", "val_annotated")
"""Splits that an instances json gives; 2014 has `val_part` besides."""


def image_folder(root: str | Path, part: str, year: int) -> Path:
    """Find the images: ROOT/train2014, ROOT/coco2014/train2014 or ROOT/images/train2014.

    Args:
        root: folder of the data set.
        part: train or val.
        year: 2014 or 2017.

    Raises:
        DatasetNotFoundError: none of them is there.
    """
    name = f"{part}{year}"
    places = [name, f"coco{year}/{name}", f"images/{name}"]
    root = locate(root, *places, give=f"the folder that holds {name} and annotations")
    return next(root / place for place in places if (root / place).is_dir())


def class_table(root: str | Path, year: int, labels: Labels = "instances") -> ClassTable:
    """Names and palette; "instances" takes them from an instances json where there is one, else the official 80.

    Args:
        root: folder of the data set; it need not exist.
        year: 2014 or 2017.
        labels: which classes.

    Raises:
        DatasetError: the json is damaged.
    """
    if labels != "instances":
        return stuff_table(labels)
    names: tuple[str, ...] = NAMES
    for part in ("val", "train"):  # val is the smaller one, where neither has been read before
        if path := annotation_file(root, f"{part}{year}"):
            names = tuple(load_instances(path).names.tolist())
            break
    return ClassTable(("background", *names), voc_palette())


def stem_of(name: str, part: str, year: int) -> str:
    """The file name without suffix of an id in a list: bare numbers get 12 digits and, for 2014, the prefix.

    Args:
        name: `9`, `000000000009`, `COCO_train2014_000000000009`, or any name of another data set.
        part: train or val.
        year: 2014 or 2017.
    """
    if not name.isdecimal():
        return name
    return f"COCO_{part}2014_{name:0>12}" if year == 2014 else f"{name:0>12}"


def index(
    root: str | Path, split: str, year: int = 2014, labels: Labels = "instances", tags: str | Path | None = None
) -> list[Sample]:
    """List the samples of a split; opens no image.

    Args:
        root: folder of the data set.
        split: see `COCO`, or a list ROOT/splits/<split>.txt; val... is of the validation images, any other of train's.
        year: 2014 or 2017.
        labels: which classes the masks have.
        tags: image-level labels that take the place of the json's, see `frugalseg.data.tags.read_tags`.

    Returns:
        Samples in the list's order. Those of COCO-Stuff have no tags.

    Raises:
        DatasetNotFoundError: root or split is not there.
        DatasetError: images are missing, or labels are another data set's.
    """
    part = "val" if split.startswith("val") else "train"
    images = image_folder(root, part, year)
    root, folder = Path(root), f"{part}{year}"
    things = labels == "instances"
    instances = _instances(root, part, year) if things else None
    ids = [stem_of(name, part, year) for name in _ids(root, split, year, instances, images)]
    known = instances.tags() if instances else {}
    if things and tags is not None:
        classes = class_table(root, year).foreground
        known = read_tags(Path(tags), classes, ids, lambda name: stem_of(name, part, year))
    places = ("SegmentationClass",) if things else ("stuffthingmaps", "annotations")
    return pair_up(
        ids,
        lambda name: [images / f"{name}.jpg"],
        lambda name: [root / place / folder / f"{name}.png" for place in places],
        f"split {split} of {root}",
        f"unpack {folder}.zip again or put a shorter list at {root}/splits/{split}.txt",
        None if things else stuff_code(labels),
        known,
    )


def _instances(root: Path, part: str, year: int) -> Instances | None:
    if (path := annotation_file(root, f"{part}{year}")) is None:
        log.info("%s: no annotations/instances_%s%d.json, so no image-level labels", root, part, year)
        return None
    instances = load_instances(path)
    if tuple(instances.names.tolist()) != class_table(root, year).names[1:]:
        raise DatasetError(f"{path}: its classes are not those of the validation json; take both from one release")
    return instances


def _official(instances: Instances | None) -> bool:
    return instances is None or (
        tuple(instances.categories.tolist()) == CATEGORY_IDS and tuple(instances.names.tolist()) == NAMES
    )


def _ids(root: Path, split: str, year: int, instances: Instances | None, images: Path) -> list[str]:
    # 2017 needs no list, and a world with its own classes has its own images
    benchmark = "coco14" if year == 2014 and _official(instances) else "none"
    listed = root / "splits" / f"{split}.txt"
    if (ids := split_ids(benchmark, split, [listed])) is not None:
        return ids
    if split not in SPLITS:
        there = (*SPLITS, *(["val_part"] if benchmark == "coco14" else []))
        raise DatasetNotFoundError(f"{listed}: no such split; there are {', '.join(there)}")
    annotated = split.endswith("_annotated") or (split == "train" and year == 2014)
    if instances is not None:
        return [stem for stem, tags in instances.tags().items() if tags or not annotated]
    if annotated:
        raise DatasetNotFoundError(
            f"{root}: split {split} needs annotations/instances_{images.name}.json;"
            f" unpack annotations_trainval{year}.zip there"
        )
    return sorted(name.removesuffix(".jpg") for name in Listing().names(images) if name.endswith(".jpg"))
