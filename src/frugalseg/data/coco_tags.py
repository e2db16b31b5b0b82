"""What an instances json says about its images, without the polygons: parsed once, then read from a small cache.

The standard library parses: a hook checks each entry and lets go of an annotation's polygons as soon as they are read,
so that a json of 333 MB (train2014) takes twice its own size. pycocotools.coco keeps everything and needs some
gigabytes.
"""

import hashlib
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frugalseg.data.folders import Tags
from frugalseg.data.io import write_atomic
from frugalseg.errors import DatasetError, DiskFullError

log = logging.getLogger(__name__)

_FORM = 1
"""Raised when the cache's arrays change their meaning."""
_LONGEST_SIDE = 65535
"""Pixels; no JPEG is larger."""
_JSON = (dict, list, str, int, float, bool, type(None))
_MEND = "give the instances_*.json of a release, unpacked again"


class Image(NamedTuple):
    """One image: its id, file name without suffix, height and width in pixels."""

    id: int
    stem: str
    height: int
    width: int


class Content(NamedTuple):
    """An instances json.

    Attributes:
        images: each once, by rising id; no two have the same stem.
        annotations: what was kept of them, in the file's order.
        categories: id -> name, by rising id, 1 to 254; class c is the c-th.
    """

    images: list[Image]
    annotations: list[Any]
    categories: dict[int, str]


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
    """Read an instances json, from the second time on out of its cache; a process keeps the last four.

    The cache is `.frugalseg/<name>.npz` beside the json or, where that cannot be written, in the user's cache folder
    (XDG_CACHE_HOME, else ~/.cache). It counts while size and time of change of the json are the same.

    Args:
        path: the json.

    Raises:
        DatasetError: it is damaged or holds no instances.
    """
    stat = path.stat()
    return _load(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4)  # where no cache can be written, one start would parse again and again
def _load(path: Path, size: int, changed: int) -> Instances:
    """Read a json of this size in bytes and time of change in ns; see `load_instances`."""
    stamp = np.array([_FORM, size, changed])
    places = _places(path)
    for place in places:
        if (found := _read(place, stamp)) is not None:
            return found
    log.info("%s: read for the first time, %d MB", path, size >> 20)
    instances = parse_instances(path)
    for place in places:
        try:
            write_atomic(place, lambda stream: np.savez_compressed(stream, stamp=stamp, **vars(instances)))
        except (OSError, DiskFullError) as error:
            log.info("%s: cannot be written (%s)", place, error)
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
    content = read_json(path, lambda entry: (whole(entry, "image_id"), whole(entry, "category_id")))
    images, names = content.images, content.categories
    categories = np.array(list(names), np.int64)
    ids = np.array([image.id for image in images], np.int64)
    found = np.array(content.annotations, np.int64).reshape(-1, 2)
    image, label = _rank(ids, found[:, 0], path, "image"), _rank(categories, found[:, 1], path, "category")
    both = np.unique(image * len(names) + label)
    counts = np.bincount(both // len(names), minlength=len(ids))
    return Instances(
        stems=np.array([image.stem for image in images]),
        sizes=np.array([(image.height, image.width) for image in images], np.int32),
        categories=categories,
        names=np.array(list(names.values())),
        starts=np.concatenate([[0], counts.cumsum()]),
        classes=(both % len(names)).astype(np.uint8),
    )


def read_json(path: Path, annotation: Callable[[dict[str, Any]], tuple[Any, ...]]) -> Content:
    """Parse an instances json.

    Args:
        path: the json.
        annotation: what to keep of an annotation; raises KeyError, TypeError, ValueError or OverflowError about a
            damaged one.

    Raises:
        DatasetError: not JSON, something that instances have is missing or of another type, or two entries contradict.
    """

    def slim(entry: dict[str, Any]) -> Any:
        try:
            if "category_id" in entry:
                return annotation(entry)
            return _image(entry) if "file_name" in entry else entry
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            kind = "annotation" if "category_id" in entry else "image"
            what = f"lacks {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
            raise DatasetError(f"{path}: {kind} {entry.get('id')!r:.40} {what}; {_MEND}") from None

    try:
        with path.open(encoding="utf-8") as stream:
            content = json.load(stream, object_hook=slim)
        return _content(content)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); mend that") from None
    except _NoInstancesError as error:
        raise DatasetError(f"{path}: {error}; {_MEND}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: is not JSON ({error}); unpack the archive again") from None


class _NoInstancesError(Exception):
    """What is wrong with a json as a whole."""


def _content(content: Any) -> Content:
    lists = content if isinstance(content, dict) else {}
    for key in ("images", "annotations", "categories"):
        if not isinstance(lists.get(key), list):
            raise _NoInstancesError(f"is no COCO instances file, it lacks {key!r} or has no list there")
    for key, lacks in (("images", "file_name"), ("annotations", "category_id")):
        # the hook has made tuples of all that are what they should be
        wrong = {kind for kind in set(map(type, lists[key])) if (kind is Image) != (key == "images") or kind in _JSON}
        if wrong:
            place, entry = next((p, entry) for p, entry in enumerate(lists[key]) if type(entry) in wrong)
            number = entry.get("id") if isinstance(entry, dict) else None
            raise _NoInstancesError(f"entry {place} of {key} (id {number!r:.40}) lacks {lacks!r} or is none at all")
    images, names = sorted(set(lists["images"])), _names(lists["categories"])
    if not 1 <= len(names) <= 254 or not images:
        raise _NoInstancesError(f"{len(images)} images and {len(names)} classes, but 1 to 254 classes are expected")
    for what in ("id", "stem"):
        seen = set()
        for image in images:
            if (value := getattr(image, what)) in seen:
                raise _NoInstancesError(f"two different images have the {what} {value!r}")
            seen.add(value)
    return Content(images, lists["annotations"], names)


def _names(entries: list[Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or not isinstance(entry.get("name"), str):
            raise _NoInstancesError(f"category {entry!r:.60} has no whole number as id, or no name")
        if names.setdefault(entry["id"], entry["name"]) != entry["name"]:
            both = f"{names[entry['id']]!r} and {entry['name']!r}"
            raise _NoInstancesError(f"category id {entry['id']} has two names, {both}")
    return dict(sorted(names.items()))


def _image(entry: dict[str, Any]) -> Image:
    name = entry["file_name"]
    stem = PurePosixPath(name).stem if isinstance(name, str) else ""
    if not stem or "\0" in stem:
        raise ValueError(f"file_name is {name!r:.40}")
    height, width = whole(entry, "height", 1, _LONGEST_SIDE), whole(entry, "width", 1, _LONGEST_SIDE)
    return Image(whole(entry, "id"), stem, height, width)


def whole(entry: dict[str, Any], key: str, low: int = 0, high: int = 2**63 - 1) -> int:
    """A whole number of an entry.

    Args:
        entry: of a json.
        key: its name.
        low: smallest number allowed.
        high: largest.

    Raises:
        KeyError: there is none.
        ValueError: text, a fraction, or outside the range.
    """
    value = entry[key]
    if type(value) is int and low <= value <= high:
        return value
    raise ValueError(f"{key} is {value!r:.40}, but a whole number from {low} to {high} is expected")


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
