"""Image-level labels from a user's file, and the check before training on any."""

import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from frugalseg.data.base import Sample, first_five
from frugalseg.data.folders import Tags
from frugalseg.errors import DatasetError, DatasetNotFoundError

_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,  # a damaged shape
    RuntimeError,  # an encrypted member, or a compression that zipfile lacks
    zipfile.BadZipFile,
    zlib.error,
)


def check_tags(samples: Sequence[Sample], where: str) -> None:
    """Refuse training images without any class: a classifier would learn that nothing is there.

    Args:
        samples: the training split of a recipe with tags; samples whose tags are None are another check's.
        where: the split and the folder, for the message.

    Raises:
        DatasetError: an image has no class.
    """
    if empty := [sample.id for sample in samples if sample.tags == ()]:
        raise DatasetError(
            f"{where}: {len(empty)} of {len(samples)} images show no class at all, first {first_five(empty)}; train on"
            " a list without them (COCO: train for 2014, train_annotated for 2017), or set recipe.allow_empty"
        )


def read_tags(path: Path, classes: int, ids: Sequence[str], stem: Callable[[str], str] = str) -> Tags:
    """Read image-level labels from a .npz with `ids` (N,) and `labels` (N, C), zeros and ones.

    Args:
        path: the file.
        classes: C, number of foreground classes.
        ids: images that need labels.
        stem: turns an id of the file into an id of the data set; whole numbers reach it with 12 digits.

    Returns:
        id -> sorted 0-based classes, for `ids` alone.

    Raises:
        DatasetNotFoundError: no such file.
        DatasetError: a pickle, another form, an id twice, or labels of another data set.
    """
    names, labels = _arrays(path)
    if labels.ndim != 2 or labels.shape != (len(names), classes):
        raise DatasetError(
            f"{path}: labels of shape {labels.shape} for {len(names)} ids, but this data set has {classes} classes:"
            " these are another data set's labels (VOC has 20); set data.tags to its own"
        )
    rows = {stem(name): row for row, name in enumerate(names)}
    if missing := [name for name in ids if name not in rows]:
        raise DatasetError(
            f"{path}: has no labels of {len(missing)} of {len(ids)} ids, first {first_five(missing)} (it has"
            f" {first_five(names)}): these are another data set's or split's labels; set data.tags to its own"
        )
    if len(rows) < len(names):
        twice = [name for name, count in Counter(map(stem, names)).items() if count > 1]
        raise DatasetError(f"{path}: has {len(twice)} ids more than once, first {first_five(twice)}; keep one row each")
    if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
        raise DatasetError(f"{path}: labels must be 0 or 1; save them as uint8 after a threshold")
    return {name: tuple(np.flatnonzero(labels[rows[name]]).tolist()) for name in ids}


def _arrays(path: Path) -> tuple[list[str], np.ndarray]:
    """Ids and labels as they are in the file."""
    objects = False
    try:
        with path.open("rb") as stream:
            objects = _may_hold_objects(stream)
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile) or not {"ids", "labels"} <= set(archive.files):
                raise DatasetError(f"{path}: is no .npz with the arrays ids and labels; save it as such (np.savez)")
            names, labels = np.asarray(archive["ids"]), np.asarray(archive["labels"])
    except FileNotFoundError:
        raise DatasetNotFoundError(f"{path}: no such file of image-level labels; mend data.tags") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        if "pickle" not in reason.lower():
            raise DatasetError(f"{path}: cannot be read ({reason}); fetch or save it again (np.savez)") from None
        if not objects:  # NumPy takes everything that it does not know for a pickle
            raise DatasetError(f"{path}: is neither .npz nor .npy; save ids and labels with np.savez") from None
        raise DatasetError(
            f"{path}: is a pickle, which can run code and is not read; if you trust it, load it yourself as a"
            " dictionary d and np.savez('tags.npz', ids=list(d), labels=np.array(list(d.values()), np.uint8))"
        ) from None
    if names.ndim != 1:
        raise DatasetError(f"{path}: ids must be one row of names, but their shape is {names.shape}; save them so")
    if names.dtype.kind in "iu":
        return [f"{number:012d}" for number in names.tolist()], labels
    return [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names.tolist()], labels


def _may_hold_objects(stream: BinaryIO) -> bool:
    """Whether a file begins like a zip, a NumPy array or a pickle (protocols 2 to 5)."""
    start = stream.read(6)
    stream.seek(0)
    return start[:2] == b"PK" or start == b"\x93NUMPY" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")
