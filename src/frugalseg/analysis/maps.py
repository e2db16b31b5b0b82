"""Folders of class maps: reading one file, and scoring a whole folder against masks.

A file `<id>.npz` holds `keys` (k,) class ids with 0 first, maps (k, H, W) under `m0`, `mw`, `mp`, and perhaps `logits`
(C, h, w). Scores are exact: integer counts summed over images (sfc.md section 9).
"""

import zipfile
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

CONTROLS = ("tags", "chance")
"""Predictions that know nothing of the image: `tags` paints one of the image's tags over all of it, `chance` draws
background or one of the tags for each pixel."""


def read_maps(path: Path) -> dict[str, NDArray[np.generic]]:
    """Arrays of one file.

    Raises:
        MapsError: missing, damaged, or without `keys`; holds not-a-number.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise MapsError(f"{path}: no such file; run the stage that makes the maps again, it continues") from None
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise MapsError(f"{path}: not readable ({error}); delete it and run the stage that makes the maps") from error
    if "keys" not in arrays or not len(arrays["keys"]) or int(arrays["keys"][0]) != 0:
        raise MapsError(
            f"{path}: has no `keys` that begin with the background; it was not written by frugalseg predict"
        )
    for name in RULES["m0"] | RULES["sum"]:
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise MapsError(f"{path}: {name} holds values that are not finite; delete it and make the maps again")
    return arrays


def predictions(arrays: dict[str, NDArray[np.generic]], rules: Iterable[str]) -> dict[str, Tensor]:
    """Labels (H, W) int64 of each rule; rules whose maps are not in the file are left out."""
    keys = torch.as_tensor(arrays["keys"].astype(np.int64))
    maps: dict[str, Tensor] = {
        name: torch.as_tensor(arrays[name].astype(np.float32)) for name in ("m0", "mw", "mp") if name in arrays
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
        MapsError: maps are missing (count and first five), damaged, or of another size or class set.
        MaskError: a mask is wrong.
    """
    scored = [s for s in samples if s.mask is not None]
    missing = [s.id for s in scored if not (folder / f"{s.id}.npz").is_file()]
    if missing:
        raise MapsError(
            f"{folder}: maps of {len(missing)} of {len(scored)} images are missing, first {first_five(missing)}; "
            "run the stage that makes them again, it continues"
        )
    if not scored:
        raise MapsError(f"{folder}: none of the {len(samples)} images of this split has a mask to score against")
    counts: dict[str, Tensor] = {}
    for done, sample in enumerate(scored, start=1):
        path = folder / f"{sample.id}.npz"
        arrays = read_maps(path)
        assert sample.mask is not None  # noqa: S101 - filtered above; tells the type checker
        truth = torch.as_tensor(read_mask(sample.mask, num_classes).astype(np.int64))
        guesses = predictions(arrays, rules)
        guesses |= control_predictions(sample, arrays["keys"].astype(np.int64), (truth.shape[0], truth.shape[1]))
        for rule, guess in guesses.items():
            if guess.shape != truth.shape:
                raise MapsError(
                    f"{path}: maps are {tuple(guess.shape)}, but the mask {sample.mask} is {tuple(truth.shape)}"
                )
            try:
                matrix = confusion_matrix(guess, truth, num_classes)
            except ValueError as error:
                raise MapsError(f"{path}: {error}; the maps belong to another benchmark") from error
            counts[rule] = counts.get(rule, torch.zeros_like(matrix)) + matrix
        if progress is not None:
            progress(done, len(scored))
    return {rule: matrix.numpy() for rule, matrix in counts.items()}
