"""What an instances json says about its images, without the polygons: parsed once, then read from a small cache.

The standard library parses: a hook lets go of each annotation's polygons as soon as they are read, so that a json of
333 MB (train2014) takes twice its own size. pycocotools.coco keeps everything and needs some gigabytes.
"""

import hashlib
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.folders import Tags
from frugalseg.data.io import write_atomic
from frugalseg.errors import DatasetError

log = logging.getLogger(__name__)

_FORM = 1
"""Raised when the cache's arrays change their meaning."""


@dataclass(frozen=True, eq=False)
class Instances:
    """Images and classes of an instances json; class c is the c-th smallest category id.

    Attributes:
        stems: (N,) str, file names without suffix, by image id.
        sizes: (N, 2) int32, H and W.
        categories: (C,) int64, sorted category ids.
        names: (C,) str, their names.
        starts: (N + 1,) int64; the classes of image n are classes[starts[n]:starts[n + 1]].
        classes: 0-based classes, sorted per image, each once; crowds count.
    """

    stems: NDArray[np.str_]
    sizes: NDArray[np.int32]
    categories: NDArray[np.int64]
    names: NDArray[np.str_]
    starts: NDArray[np.int64]
    classes: NDArray[np.uint8]

    def tags(self) -> Tags:
        """Stem -> 0-based classes; () for an image without annotation."""
        classes, starts = self.classes.tolist(), self.starts.tolist()
        rows = zip(self.stems.tolist(), starts[:-1], starts[1:], strict=True)
        return {stem: tuple(classes[first:last]) for stem, first, last in rows}


def annotation_file(root: str | Path, folder: str) -> Path | None:
    """Find instances_<folder>.json in ROOT/annotations or ROOT/coco<year>/annotations; None where it is in neither.

    Args:
        root: folder of the data set.
        folder: train2014, val2014, train2017 or val2017.
    """
    name = f"annotations/instances_{folder}.json"
    return next((path for path in (Path(root, name), Path(root, f"coco{folder[-4:]}", name)) if path.is_file()), None)


def load_instances(path: Path) -> Instances:
    """Read an instances json, from the second time on out of its cache.

    The cache is `.frugalseg/<name>.npz` beside the json or, where that cannot be written, in the user's cache folder
    (XDG_CACHE_HOME, else ~/.cache). It counts while size and time of change of the json are the same.

    Args:
        path: the json.

    Raises:
        DatasetError: it is damaged or holds no instances.
    """
    stat = path.stat()
    stamp = np.array([_FORM, stat.st_size, stat.st_mtime_ns])
    places = _places(path)
    for place in places:
        if (found := _read(place, stamp)) is not None:
            return found
    log.info("%s: read for the first time, %d MB", path, stat.st_size >> 20)
    instances = parse_instances(path)
    for place in places:
        try:
            write_atomic(place, lambda stream: np.savez_compressed(stream, stamp=stamp, **vars(instances)))
        except OSError as error:
            log.info("%s: cannot be written (%s)", place, error.strerror)
        else:
            return instances
    log.warning("%s: no cache can be written beside it or in the user's folder, so every start parses it", path)
    return instances


def parse_instances(path: Path) -> Instances:
    """Read an instances json itself.

    Args:
        path: the json.

    Raises:
        DatasetError: it is damaged or holds no instances.
    """
    content = read_json(path, lambda annotation: (annotation["image_id"], annotation["category_id"]))
    images = sorted(content["images"])
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    categories = np.array(sorted(names), np.int64)
    if not 1 <= len(names) <= 254 or not images:
        raise DatasetError(f"{path}: {len(images)} images and {len(names)} classes, but 1 to 254 classes are expected")
    ids = np.array([image[0] for image in images], np.int64)
    found = np.array(content["annotations"], np.int64).reshape(-1, 2)
    image, label = _rank(ids, found[:, 0], path, "image"), _rank(categories, found[:, 1], path, "category")
    both = np.unique(image * len(names) + label)
    counts = np.bincount(both // len(names), minlength=len(ids))
    return Instances(
        stems=np.array([image[1] for image in images]),
        sizes=np.array([image[2:] for image in images], np.int32),
        categories=categories,
        names=np.array([names[number] for number in categories.tolist()]),
        starts=np.concatenate([[0], counts.cumsum()]),
        classes=(both % len(names)).astype(np.uint8),
    )


def read_json(path: Path, annotation: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Parse an instances json.

    Args:
        path: the json.
        annotation: what to keep of an annotation.

    Returns:
        Its lists `annotations`; `images` as (id, stem, H, W); `categories` as they are.

    Raises:
        DatasetError: not JSON, or something that instances have is missing.
    """

    def slim(entry: dict[str, Any]) -> Any:
        if "category_id" in entry:
            return annotation(entry)
        if "file_name" in entry:
            return entry["id"], PurePosixPath(entry["file_name"]).stem, entry["height"], entry["width"]
        return entry

    try:
        with path.open(encoding="utf-8") as stream:
            content = json.load(stream, object_hook=slim)
        return {key: content[key] for key in ("images", "annotations", "categories")}
    except ValueError as error:
        raise DatasetError(f"{path}: is not JSON ({error}); unpack the archive again") from None
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path}: is no COCO instances file, it lacks {error}; give instances_*.json") from None


def _rank(known: NDArray[np.int64], wanted: NDArray[np.int64], path: Path, what: str) -> NDArray[np.int64]:
    """Places of ids in the sorted `known`."""
    places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    if (lost := known[places] != wanted).any():
        raise DatasetError(
            f"{path}: {int(lost.sum())} annotations name a {what} that is not in the file, first id"
            f" {wanted[lost][0]}; unpack the archive again"
        )
    return places


def _places(path: Path) -> list[Path]:
    """Where the cache may be, best first."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return [path.parent / ".frugalseg" / f"{path.stem}.npz", user / "frugalseg" / f"{path.stem}-{digest}.npz"]


def _read(place: Path, stamp: NDArray[np.int64]) -> Instances | None:
    """A cache, or None where it is absent, damaged or of another json."""
    try:
        with place.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["stamp"], stamp):
                return None
            return Instances(**{key: arrays[key] for key in Instances.__dataclass_fields__})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
