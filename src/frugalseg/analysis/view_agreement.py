"""How equal CTI's class tokens and maps are between two views of an image, and how far tokens of classes lie apart.

From what `model.init_args.save_views` keeps of the classes that an image shows (papers/cti/second_view.py). Equality
between views is I-CTI's aim, separation of classes C-CTI's (cti.md sections 4.3 and 4.4).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frugalseg.analysis.maps import Arrays, read_maps
from frugalseg.analysis.tokens import cosines, token_separation
from frugalseg.data.base import Sample
from frugalseg.errors import MapsError

TOKENS: Final = {"": "tokens", "_infused": "tokens_infused"}
"""Ending of the keys -> array: tokens of the last block, and those that are infused."""
MAPS: Final = ("r", "f")
_SIZES: Final = {"tokens": 3, "tokens_infused": 3, "views_r": 4, "views_f": 4}
"""Array -> its number of dimensions."""


def view_values(folder: Path, samples: Sequence[Sample]) -> dict[str, float]:
    """Measures over all classes of all images of a split.

    Args:
        folder: maps written with `save_views`.
        samples: images of the split; the true masks are not needed.

    Returns:
        `view_entries`: images x classes that they show; `view_cosine` and `view_cosine_infused`: mean cosine of a class
        token in the two views; `view_iou_r` and `view_iou_f`: mean soft IoU of a map in the two views;
        `token_within`, `token_between`, `token_separation` and `token_silhouette` of the first view, see
        `token_separation`, and the same with `_infused`. What nothing can be said of is left out.

    Raises:
        MapsError: maps are missing or damaged, or lack the tokens.
    """
    classes: list[NDArray[np.int64]] = []
    tokens: dict[str, list[NDArray[np.float32]]] = {ending: [] for ending in TOKENS}
    overlaps: dict[str, list[NDArray[np.float64]]] = {name: [] for name in MAPS}
    for sample in samples:
        path = folder / f"{sample.id}.npz"
        arrays = _checked(path, read_maps(path))
        classes.append(arrays["keys"][1:].astype(np.int64))
        for ending, name in TOKENS.items():
            tokens[ending].append(arrays[name].astype(np.float32))
        for name in MAPS:
            overlaps[name].append(soft_iou(*arrays[f"views_{name}"].astype(np.float64)))
    if not sum(map(len, classes)):
        return {}
    ids = np.concatenate(classes)
    values = {"view_entries": float(len(ids))}
    for ending, found in tokens.items():
        first, second = np.concatenate([pair for pair in found if pair.shape[1]], axis=1)
        values[f"view_cosine{ending}"] = float(cosines(first, second).mean())
        values |= {f"token_{name}{ending}": value for name, value in token_separation(first, ids).items()}
    for name, each in overlaps.items():
        known = np.concatenate(each)
        if not np.isnan(known).all():
            values[f"view_iou_{name}"] = float(np.nanmean(known))
    return values


def soft_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the smaller over sum of the larger value of each pixel.

    Args:
        first: (k, h, w) in 0..1.
        second: the same shape.

    Returns:
        (k,) in 0..1; nan where both maps are empty, for these say nothing.
    """
    both, either = np.minimum(first, second).sum(axis=(1, 2)), np.maximum(first, second).sum(axis=(1, 2))
    overlap: NDArray[np.float64] = np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)
    return overlap


def _checked(path: Path, arrays: Arrays) -> Arrays:
    """The arrays, all of which are there and belong together."""
    if lacking := [name for name in _SIZES if name not in arrays]:
        raise MapsError(f"{path}: holds no {lacking[0]}; make the maps with model.init_args.save_views true")
    shown = len(arrays["keys"]) - 1
    for name, dimensions in _SIZES.items():
        values = arrays[name]
        flaw = values.dtype.kind != "f" or values.ndim != dimensions or values.shape[:2] != (2, shown)
        if flaw or not np.isfinite(values).all():
            raise MapsError(
                f"{path}: {name} is {values.dtype} of shape {values.shape}, not finite numbers of two views of {shown}"
                " classes; delete the file and done.json beside the maps and make them again"
            )
    return arrays
