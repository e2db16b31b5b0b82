"""Semantic masks from COCO's instance annotations.

Rule: crowd regions are painted first, then the other annotations by falling `area`, those of equal area by rising
annotation id. What is painted later hides what is beneath, so small objects lie on top; what is left is background.
"""

import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.coco_tags import annotation_file, read_json
from frugalseg.data.io import image_size, write_atomic, write_mask
from frugalseg.data.parallel import each
from frugalseg.errors import DatasetError, DatasetNotFoundError, ImageError
from frugalseg.ops.palette import voc_palette

Crowd = Literal["class", "ignore"]

SETTINGS = ".settings.json"
"""File beside the masks that says how they were made."""


class Annotation(NamedTuple):
    """One annotated region.

    Attributes:
        id: number of the annotation.
        image: id of its image.
        category: category id; not the class id.
        area: as the file says, in pixels.
        crowd: a group that was not told apart.
        region: polygons as x, y, x, y, ..., or a run-length code.
    """

    id: int
    image: int
    category: int
    area: float
    crowd: bool
    region: Any


class Job(NamedTuple):
    """A mask to make: the file, (H, W), its annotations with their class ids, and what crowds become."""

    path: Path
    size: tuple[int, int]
    layers: list[tuple[Annotation, int]]
    crowd: Crowd


def make_masks(
    root: str | Path,
    folder: str,
    workers: int | None = None,
    crowd: Crowd = "class",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write ROOT/SegmentationClass/<folder>/<image>.png for every image of an instances json.

    It can be stopped at any time and started again: masks that are there, with the size of their image, are kept.

    Args:
        root: folder that holds annotations.
        folder: train2014, val2014, train2017 or val2017.
        workers: processes; None for all cores.
        crowd: crowd regions get their class, or 255.
        progress: called with (masks done, masks in all).

    Returns:
        Number of masks written now.

    Raises:
        DatasetNotFoundError: no such json.
        DatasetError: the json is damaged, or the folder holds other masks or cannot be written.
        DiskFullError: there is no room; finished masks are kept.
    """
    target = Path(root) / "SegmentationClass" / folder
    if (source := annotation_file(root, folder)) is None:
        raise DatasetNotFoundError(
            f"{root}: has no annotations/instances_{folder}.json; unpack annotations_trainval{folder[-4:]}.zip there"
        )
    jobs = list_jobs(source, target, crowd)
    try:
        _claim(target, {"crowd": crowd, "source": source.name, "bytes": source.stat().st_size})
        return sum(each(make_mask, jobs, workers, progress))
    except OSError as error:
        raise DatasetError(f"{target}: cannot be written ({error.strerror}); mend that and start again") from None


def list_jobs(source: Path, target: Path, crowd: Crowd) -> list[Job]:
    """Read an instances json.

    Args:
        source: the json.
        target: folder of the masks.
        crowd: see `make_masks`.

    Returns:
        One job per image, with or without annotations.

    Raises:
        DatasetError: the json is damaged.
    """
    content = read_json(source, _annotation)
    rank = {number: place for place, number in enumerate(sorted(entry["id"] for entry in content["categories"]), 1)}
    jobs = {image: Job(target / f"{stem}.png", (h, w), [], crowd) for image, stem, h, w in content["images"]}
    for annotation in content["annotations"]:
        if annotation.image not in jobs or annotation.category not in rank:
            what = f"annotation {annotation.id} names an image or a category that is not in the file"
            raise DatasetError(f"{source}: {what}; unpack the archive again")
        jobs[annotation.image].layers.append((annotation, rank[annotation.category]))
    return list(jobs.values())


def _annotation(entry: dict[str, Any]) -> Annotation:
    region = entry["segmentation"]
    if isinstance(region, list):  # 8 bytes a number; Python's own take 32, gigabytes for the whole file
        region = [array("d", polygon) for polygon in region]
    crowd = bool(entry.get("iscrowd", 0))
    return Annotation(entry["id"], entry["image_id"], entry["category_id"], float(entry["area"]), crowd, region)


def paint(job: Job) -> NDArray[np.uint8]:
    """Paint one mask.

    Returns:
        (H, W) uint8, class ids, 0 background, 255 crowds where they are ignored.

    Raises:
        DatasetError: a run-length code of another size.
    """
    canvas = np.zeros(job.size, np.uint8, order="F")  # pycocotools' order
    for annotation, class_id in sorted(job.layers, key=lambda layer: _height(layer[0])):
        value = IGNORE_INDEX if annotation.crowd and job.crowd == "ignore" else class_id
        np.copyto(canvas, value, where=decode(annotation, job))
    return np.ascontiguousarray(canvas)


def _height(annotation: Annotation) -> tuple[bool, float, int]:
    return not annotation.crowd, -annotation.area, annotation.id


def decode(annotation: Annotation, job: Job) -> NDArray[np.bool_]:
    """Pixels of an annotation, (H, W) bool, by pycocotools: the union of its polygons, or its run-length code."""
    region = annotation.region
    if isinstance(region, list):
        if not region:
            return np.zeros(job.size, bool)
        region = rle.merge(rle.frPyObjects(region, *job.size))
    elif isinstance(region["counts"], list):
        region = rle.frPyObjects(region, *region["size"])
    covered: NDArray[np.uint8] = rle.decode(region)
    if covered.shape != job.size:
        raise DatasetError(
            f"{job.path.name}: annotation {annotation.id} is {covered.shape[0]}x{covered.shape[1]} (HxW), its image"
            f" {job.size[0]}x{job.size[1]}; take image list and annotations from one release"
        )
    return covered.view(bool)


def make_mask(job: Job) -> bool:
    """Write one mask unless it is there; returns whether it was written."""
    try:
        if image_size(job.path) == job.size:
            return False
    except ImageError:
        pass  # absent, or cut off by something else than this program
    write_mask(job.path, paint(job), voc_palette())
    return True


def _claim(target: Path, settings: dict[str, Any]) -> None:
    """Record how the masks of a folder are made, or check that those in it are made so."""
    record = target / SETTINGS
    before = json.loads(record.read_text()) if record.is_file() else {}
    if before == settings:
        return
    if target.is_dir() and any(entry.suffix == ".png" for entry in target.iterdir()):
        changed = ", ".join(f"{key} {before[key]}" for key in before if before[key] != settings.get(key))
        raise DatasetError(
            f"{target}: holds masks {f'made with {changed}' if changed else 'of another origin'}, not with crowd"
            f" {settings['crowd']} from this {settings['source']}; move them away to make these"
        )
    write_atomic(record, lambda stream: stream.write(json.dumps(settings).encode()))
