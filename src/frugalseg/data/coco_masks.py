"""Semantic masks from COCO's instance annotations.

Rule: crowd regions are painted first, then the other annotations by falling `area`, those of equal area by rising
annotation id. What is painted later hides what is beneath, so small objects lie on top; what is left is background.
"""

import hashlib
import json
from array import array
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from frugalseg.batch import IGNORE_INDEX
from frugalseg.data.coco_tags import annotation_file, read_json, whole
from frugalseg.data.io import image_size, remove_leftovers, write_atomic, write_mask
from frugalseg.data.parallel import Progress, each
from frugalseg.errors import DatasetError, DatasetNotFoundError, ImageError
from frugalseg.ops.palette import voc_palette

Crowd = Literal["class", "ignore"]

SETTINGS = ".settings.json"
"""File beside the masks that says how they were made."""
_FARTHEST = 1e5
"""Pixels from the origin; pycocotools needs memory and time by the length of an edge."""


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
    """A mask to make: the file, (H, W), its annotations with their class ids, what crowds become, and the json."""

    path: Path
    size: tuple[int, int]
    layers: list[tuple[Annotation, int]]
    crowd: Crowd
    source: Path


def make_masks(
    root: str | Path,
    folder: str,
    workers: int | None = None,
    crowd: Crowd = "class",
    progress: Progress | None = None,
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
        size, digest = source.stat().st_size, _sha256(source)
        _claim(target, {"crowd": crowd, "source": source.name, "bytes": size, "sha256": digest})
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
    rank = {number: place for place, number in enumerate(content.categories, 1)}
    jobs = {n: Job(target / f"{stem}.png", (h, w), [], crowd, source) for n, stem, h, w in content.images}
    for annotation in content.annotations:
        if annotation.image not in jobs or annotation.category not in rank:
            what = f"annotation {annotation.id} names an image or a category that is not in the file"
            raise DatasetError(f"{source}: {what}; unpack the archive again")
        jobs[annotation.image].layers.append((annotation, rank[annotation.category]))
    return list(jobs.values())


def _annotation(entry: dict[str, Any]) -> Annotation:
    area, crowd = entry["area"], entry.get("iscrowd", 0)
    if type(area) not in (int, float) or area != area or crowd not in (0, 1):
        raise ValueError(f"area is {area!r:.40} and iscrowd {crowd!r:.40}, but a number and 0 or 1 are expected")
    number, image, category = whole(entry, "id"), whole(entry, "image_id"), whole(entry, "category_id")
    return Annotation(number, image, category, float(area), bool(crowd), _region(entry["segmentation"]))


def _region(region: Any) -> Any:
    """Check the form of a region, not its numbers: those are checked when it is painted, by all processes."""
    if isinstance(region, list):
        try:
            # 8 bytes a number; Python's own take 32, gigabytes for the whole file
            polygons = [array("d", polygon) for polygon in region]
        except (TypeError, OverflowError):
            raise ValueError(f"segmentation is {region!r:.40}, but lists of numbers are expected") from None
        if odd := [len(polygon) for polygon in polygons if len(polygon) % 2]:
            raise ValueError(f"a polygon has {odd[0]} numbers, but an x and a y for each point are expected")
        # fewer than three points cover nothing; pycocotools would take four numbers for a box
        return [polygon for polygon in polygons if len(polygon) >= 6]
    code = region if isinstance(region, dict) else {}
    if not isinstance(code.get("counts"), str | list) or not isinstance(code.get("size"), list):
        raise ValueError(f"segmentation is {region!r:.40}, but polygons or run lengths (counts, size) are expected")
    return region


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
    """Pixels of an annotation, by pycocotools: the union of its polygons, or its run-length code.

    Returns:
        (H, W) bool.

    Raises:
        DatasetError: a code of another size, or numbers that are no region.
    """
    region = annotation.region
    where = f"{job.source}: image {job.path.stem}, annotation {annotation.id}"
    if isinstance(region, list):
        if not region:
            return np.zeros(job.size, bool)
        if not all(np.abs(polygon).max() <= _FARTHEST for polygon in region):
            raise DatasetError(f"{where} has a point farther than {_FARTHEST:.0f} pixels away; mend or remove it")
        code = rle.merge(rle.frPyObjects(region, *job.size))
    else:
        if region["size"] != list(job.size):
            raise DatasetError(
                f"{where} is {'x'.join(map(str, region['size'])):.40} (HxW), its image {job.size[0]}x{job.size[1]};"
                " take image list and annotations from one release"
            )
        counts = region["counts"] if isinstance(region["counts"], list) else _run_lengths(region["counts"])
        # pycocotools leaves pixels beyond the last run as the memory was
        if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != job.size[0] * job.size[1]:
            raise DatasetError(f"{where} has run lengths that do not fill its image; unpack the archive again")
        code = rle.frPyObjects({"size": region["size"], "counts": counts}, *job.size)
    covered: NDArray[np.uint8] = rle.decode(code)
    return covered.view(bool)


def _run_lengths(code: str) -> list[int]:
    """Run lengths of a compressed code: 5 bits a character, low ones first; from the fourth on, differences.

    Returns:
        Lengths; [-1] for text that is no code.
    """
    runs: list[int] = []
    value = shift = 0
    for character in code:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return [-1]
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the last of this number
            value -= (bits & 16) << (shift - 4)  # sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if not shift else [-1]


def make_mask(job: Job) -> bool:
    """Write one mask unless it is there; returns whether it was written."""
    try:
        if image_size(job.path) == job.size:
            return False
    except ImageError:
        pass  # absent, or cut off by something else than this program
    write_mask(job.path, paint(job), voc_palette())
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _claim(target: Path, settings: dict[str, Any]) -> None:
    """Record how the masks of a folder are made, or check that those in it are made so; remove what a kill left."""
    record = target / SETTINGS
    before = _settings(record)
    if before != settings:
        if target.is_dir() and any(entry.suffix == ".png" for entry in target.iterdir()):
            changed = ", ".join(f"{key} {before[key]}" for key in before if before[key] != settings.get(key))
            raise DatasetError(
                f"{target}: holds masks {f'made with {changed}' if changed else 'of another origin'}, not with crowd"
                f" {settings['crowd']} from this {settings['source']}; move them away to make these"
            )
        write_atomic(record, lambda stream: stream.write(json.dumps(settings).encode()))
    remove_leftovers(target)


def _settings(record: Path) -> dict[str, Any]:
    try:
        before = json.loads(record.read_text()) if record.is_file() else {}
    except (ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        raise DatasetError(f"{record}: is damaged, so nobody knows how the masks beside it were made; move both away")
    return before
