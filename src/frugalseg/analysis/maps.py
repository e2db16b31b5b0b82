"""Folders of class maps: reading one file, and scoring a whole folder against masks.

A file `<id>.npz` holds `keys` (k,) class ids with 0 first, maps (k, H, W) under `m0`, `mw`, `mp`, and perhaps `logits`
(C, h, w). Scores are exact: integer counts summed over images (sfc.md section 9).
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.data.base import Sample, first_five
from frugalseg.data.io import read_mask
from frugalseg.errors import MapsError
from frugalseg.ops.cam import RULES, combine, labels_from_maps
from frugalseg.ops.confusion import confusion_matrix

MAPS = ("m0", "mw", "mp")
CONTROLS = ("tags", "chance")
"""Predictions that know nothing of the image: `tags` paints one of the image's tags over all of it, `chance` draws
background or one of the tags for each pixel."""


def read_maps(path: Path) -> dict[str, NDArray[np.generic]]:
    """Arrays of one file.

    Raises:
        MapsError: missing, damaged, or not what the top of this module says.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("one bare array, not an archive")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
        if foreign := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{foreign[0]} is no array")
    except FileNotFoundError:
        raise MapsError(f"{path}: no such file; remove done.json beside the maps and make them again") from None
    except Exception as error:  # damage makes zipfile, zlib and NumPy raise nearly anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise MapsError(
            f"{path}: not readable ({reason}); delete it and done.json beside the maps and make them again"
        ) from error
    if (flaw := _flaw(arrays)) is not None:
        raise MapsError(f"{path}: {flaw}; if frugalseg predict wrote it, delete it and run that stage again")
    return arrays


def _flaw(arrays: dict[str, NDArray[np.generic]]) -> str | None:
    """What is wrong with the arrays of a file, or None."""
    keys = arrays.get("keys", np.empty(0))
    if keys.ndim != 1 or keys.dtype.kind not in "iu" or not len(keys) or keys[0] != 0:
        return "has no `keys` that begin with the background"
    found = {name: arrays[name] for name in (*MAPS, "logits") if name in arrays}
    for name, values in found.items():
        if values.ndim != 3 or values.dtype.kind not in "fiu":
            return f"{name} is {values.dtype} of shape {values.shape}, not numbers in three dimensions"
        if not np.isfinite(values).all():
            return f"{name} holds values that are not finite"
        if name in MAPS and len(values) != len(keys):
            return f"{name} has {len(values)} channels for {len(keys)} keys"
    if len({values.shape for name, values in found.items() if name in MAPS}) > 1:
        return "its maps differ in size"
    return None


def predictions(arrays: dict[str, NDArray[np.generic]], rules: Iterable[str]) -> dict[str, Tensor]:
    """Labels (H, W) int64 of each rule; rules whose maps are not in the file are left out."""
    keys = torch.as_tensor(arrays["keys"].astype(np.int64))
    maps: dict[str, Tensor] = {
        name: torch.as_tensor(arrays[name].astype(np.float32)) for name in MAPS if name in arrays
    }
    usable = [rule for rule in rules if all(name in maps for name in RULES[rule])]
    return {rule: labels_from_maps(combine(maps, rule), keys) for rule in usable}


def control_predictions(sample: Sample, keys: NDArray[np.integer], size: tuple[int, int]) -> dict[str, Tensor]:
    """Labels of `CONTROLS`, a pure function of the sample's id."""
    rng = np.random.default_rng(zlib.crc32(sample.id.encode()))
    ids = np.asarray(keys, dtype=np.int64)
    tag = int(rng.choice(ids[1:])) if len(ids) > 1 else 0
    return {"tags": torch.full(size, tag), "chance": torch.as_tensor(rng.choice(ids, size=size))}


def score_folder(
    folder: Path,
    samples: Sequence[Sample],
    num_classes: int,
    rules: Sequence[str] = tuple(RULES),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Confusion matrices of all rules and controls over the samples that have a mask.

    Args:
        folder: `<id>.npz` files.
        samples: images; those without a mask are left out.
        num_classes: K.
        rules: names in `RULES`.
        progress: called with (done, total).

    Returns:
        Rule or control -> (K, K) counts, row = true class.

    Raises:
        MapsError: maps are missing (count and first five), damaged, of another size or class set, or some images
            have maps that others lack.
        MaskError: a mask is wrong.
    """
    scored = _scorable(folder, samples)
    counts: dict[str, Tensor] = {}
    for done, sample in enumerate(scored, start=1):
        path = folder / f"{sample.id}.npz"
        matrices = _count_image(path, sample, num_classes, rules)
        if counts and (odd := matrices.keys() ^ counts.keys()):
            raise MapsError(
                f"{path}: differs from {scored[0].id}.npz in having maps for the rules {', '.join(sorted(odd))}; "
                "the folder mixes two runs, delete one's files and run the stage that makes the maps"
            )
        counts = {rule: counts[rule] + m if rule in counts else m for rule, m in matrices.items()}
        if progress is not None:
            progress(done, len(scored))
    return {rule: matrix.numpy() for rule, matrix in counts.items()}


def _scorable(folder: Path, samples: Sequence[Sample]) -> list[Sample]:
    """Samples with a mask; the maps of all of them must be there."""
    scored = [s for s in samples if s.mask is not None]
    missing = [s.id for s in scored if not (folder / f"{s.id}.npz").is_file()]
    if missing:
        raise MapsError(
            f"{folder}: maps of {len(missing)} of {len(scored)} images are missing, first {first_five(missing)}; "
            "remove done.json beside the maps and make them again: those that are there stay"
        )
    if not scored:
        raise MapsError(f"{folder}: none of the {len(samples)} images of this split has a mask to score against")
    return scored


def _count_image(path: Path, sample: Sample, num_classes: int, rules: Sequence[str]) -> dict[str, Tensor]:
    """Confusion matrix of every usable rule and control for one image."""
    arrays = read_maps(path)
    assert sample.mask is not None  # noqa: S101 - filtered before; tells the type checker
    truth = torch.as_tensor(read_mask(sample.mask, num_classes, code=sample.code).astype(np.int64))
    guesses = predictions(arrays, rules)
    guesses |= control_predictions(sample, arrays["keys"].astype(np.int64), (truth.shape[0], truth.shape[1]))
    for guess in guesses.values():
        if guess.shape != truth.shape:
            raise MapsError(
                f"{path}: maps are {tuple(guess.shape)}, but the mask {sample.mask} is {tuple(truth.shape)}"
            )
    try:
        return {rule: confusion_matrix(guess, truth, num_classes) for rule, guess in guesses.items()}
    except ValueError as error:
        raise MapsError(f"{path}: {error}; the maps belong to another benchmark") from error
