"""What the verbs that make labels read: maps and edges of each image, checked against the image and the benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.analysis.maps import MAPS, Arrays, check_classes, foreground_scores, lacking, read_maps
from frugalseg.data.base import Sample, first_five
from frugalseg.errors import MapsError
from frugalseg.ops.cam import RULES, combine
from frugalseg.ops.walk_labels import stride_of

EDGES = {"edge": 2, "affinity": 3}
"""What files of edges may hold, and in how many dimensions: (h, w) of IRN, (P, h, w) of PSA."""


def require_files(folder: Path, samples: Sequence[Sample], what: str) -> None:
    """Refuse a folder without `<id>.npz` of every sample.

    Args:
        folder: of one stage's results.
        samples: of a split.
        what: "maps" or "edges".

    Raises:
        MapsError: no such folder, or how many files are missing, the first five, and how to mend it.
    """
    if not folder.is_dir():
        raise MapsError(f"{folder}: no such folder; run the stage that makes the {what} first")
    there = {path.name for path in folder.iterdir()}
    if missing := [sample.id for sample in samples if f"{sample.id}.npz" not in there]:
        raise MapsError(
            f"{folder}: {what} of {len(missing)} of {len(samples)} images are missing, first {first_five(missing)};"
            f" remove done.json beside the {what} and make them again: those that are there stay"
        )


def read_image_maps(folder: Path, sample: Sample, num_classes: int, size: tuple[int, int]) -> Arrays:
    """Maps of one image, checked.

    Args:
        folder: `<id>.npz` files.
        sample: the image.
        num_classes: K.
        size: (H, W) of the image.

    Returns:
        `keys` (k,) and maps (k, H, W).

    Raises:
        MapsError: missing or damaged, classes of another benchmark, or another size than the image's.
    """
    path = folder / f"{sample.id}.npz"
    arrays = read_maps(path)
    check_classes(path, arrays, num_classes)
    for name in MAPS:
        if name in arrays and arrays[name].shape[1:] != size:
            found = _size(arrays[name].shape[1:])
            raise MapsError(
                f"{path}: {name} is {found} (HxW), but the image {sample.image} is {_size(size)};"
                " take images and maps of the same release, or make the maps again"
            )
    return arrays


def keys_of(arrays: Arrays) -> Tensor:
    """Class ids (k,) int64 of maps."""
    return torch.as_tensor(arrays["keys"].astype(np.int64))


def scores_of(path: Path, arrays: Arrays, rule: str) -> Tensor:
    """Scores of a rule, background first, (k, H, W) float32.

    Args:
        path: of the arrays, for the message.
        arrays: maps of one image.
        rule: of `ops.cam.RULES`.

    Raises:
        MapsError: a map that the rule needs is not there.
    """
    _require_rule(path, arrays, rule)
    return combine({name: torch.as_tensor(arrays[name].astype(np.float32)) for name in RULES[rule]}, rule)


def foreground_of(path: Path, arrays: Arrays, rule: str) -> Tensor:
    """Scores of the classes alone, in 0..1, (k - 1, H, W) float32.

    Args:
        path: of the arrays, for the message.
        arrays: maps of one image.
        rule: of `analysis.maps.SWEEPS`.

    Raises:
        MapsError: a map that the rule needs is not there.
    """
    _require_rule(path, arrays, rule)
    return foreground_scores(arrays, rule).clamp(0, 1)


def _require_rule(path: Path, arrays: Arrays, rule: str) -> None:
    if missing := lacking(arrays, rule):
        held = ", ".join(name for name in MAPS if name in arrays) or "no map"
        raise MapsError(f"{path}: holds {held}, but the rule {rule} needs {missing[0]}; choose another rule")


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def held_edges(folder: Path, sample: Sample) -> str:
    """Which of `EDGES` a folder holds, as its first file says.

    Args:
        folder: `<id>.npz` files.
        sample: whose file is looked at.

    Raises:
        MapsError: damaged, or it holds neither.
    """
    path = folder / f"{sample.id}.npz"
    arrays = _read_arrays(path)
    for name in EDGES:
        if name in arrays:
            return name
    held = ", ".join(arrays) or "nothing"
    raise MapsError(
        f"{path}: holds {held}, neither `edge` nor `affinity`; give the folder of the stage that made edges"
    )


def read_edges(folder: Path, sample: Sample, name: str, size: tuple[int, int]) -> Tensor:
    """Edges or affinities of one image.

    Args:
        folder: `<id>.npz` files.
        sample: the image.
        name: of `EDGES`.
        size: (H, W) of the image.

    Returns:
        (h, w) or (P, h, w) float32.

    Raises:
        MapsError: missing or damaged, not finite, outside 0..1, or not of ceil(H / stride) x ceil(W / stride) cells.
    """
    path = folder / f"{sample.id}.npz"
    values = _read_arrays(path).get(name)
    again = "delete it and done.json beside the edges and make them again"
    if values is None:
        raise MapsError(f"{path}: has no `{name}`, unlike the first file of the folder, which mixes two runs; {again}")
    if values.ndim != EDGES[name] or values.dtype.kind != "f":
        what = f"{values.dtype} of shape {values.shape}, not floats in {EDGES[name]} dimensions"
        raise MapsError(f"{path}: {name} is {what}; {again}")
    if not np.isfinite(values).all() or (values.size and not 0 <= values.min() <= values.max() <= 1):
        raise MapsError(f"{path}: {name} holds values that are not between 0 and 1; {again}")
    try:
        stride_of(size, (values.shape[-2], values.shape[-1]))
    except ValueError as error:
        raise MapsError(f"{path}: {name} does not fit the image {sample.image} ({error}); {again}") from error
    return torch.as_tensor(values.astype(np.float32))


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one bare array, not an archive")
        with archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except Exception as error:  # damage makes zipfile, zlib and NumPy raise nearly anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise MapsError(
            f"{path}: not readable ({reason}); delete it and done.json beside the edges and make them again"
        ) from error
