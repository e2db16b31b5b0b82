"""Folders of class maps: reading one file, and the labels that it stands for.

A file `<id>.npz` holds `keys` (k,) class ids, 0 first, and maps (k, H, W): `m0`, `mw`, `mp` of SFC (sfc.md section 6),
or `cam` of CTI (cti.md section 6), and perhaps `logits` (C, h, w). CTI's background is a constant threshold. The first
row of its maps is that of the background token, for pictures alone; the others run from 0 to 1 in each class.

Where they were asked for, CTI's file also holds what its seed map is made of (cti.md section 3), in the same form:

- `r`: R, the map of the patch head;
- `mt`: attention from class tokens to patches;
- `f`: F = R * mt;
- `q`: Q = pa F, with the attention pa among patches;
- `infused`: R again, with the class memory's prototypes infused into the class tokens (section 4.4).
"""

import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.data.base import Sample, first_five
from frugalseg.errors import MapsError
from frugalseg.ops.cam import RULES, combine, labels_from_maps

TOKEN_MAPS = ("cam", "r", "mt", "f", "q", "infused")
"""CTI's, which have no background of their own."""
MAPS = ("m0", "mw", "mp", *TOKEN_MAPS)
SWEEPS = (*RULES, *TOKEN_MAPS)
"""Maps, and sums of maps, whose background can be a constant threshold."""
CONTROLS = ("tags", "chance")
"""Predictions that know nothing of the image: `tags` paints one of the image's tags over all of it, `chance` draws
background or one of the tags for each pixel."""

Arrays = dict[str, NDArray[np.generic]]


def read_maps(path: Path) -> Arrays:
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
        again = "if frugalseg predict wrote it, delete it and done.json beside the maps and make them again"
        raise MapsError(f"{path}: {flaw}; {again}")
    return arrays


def _flaw(arrays: Arrays) -> str | None:
    """What is wrong with the arrays of a file, or None."""
    keys = arrays.get("keys", np.empty(0))
    if keys.ndim != 1 or keys.dtype.kind not in "iu" or not len(keys) or keys[0] != 0:
        return "has no `keys` that begin with the background"
    if len(np.unique(keys)) < len(keys):
        return "names a class twice in its `keys`"
    found = {name: arrays[name] for name in (*MAPS, "logits") if name in arrays}
    for name, values in found.items():
        if values.ndim != 3 or values.dtype.kind not in "fiu":
            return f"{name} is {values.dtype} of shape {values.shape}, not numbers in three dimensions"
        if not values.size:
            return f"{name} is empty, of shape {values.shape}"
        if not np.isfinite(values).all():
            return f"{name} holds values that are not finite"
        if name in MAPS and len(values) != len(keys):
            return f"{name} has {len(values)} channels for {len(keys)} keys"
    if len({values.shape for name, values in found.items() if name in MAPS}) > 1:
        return "its maps differ in size"
    return None


def scorable(folder: Path, samples: Sequence[Sample]) -> list[Sample]:
    """Samples that have a mask to score against; the maps of all of them must be there.

    Raises:
        MapsError: the folder, or maps in it, are missing (count and first five).
    """
    if not folder.is_dir():
        raise MapsError(f"{folder}: no such folder; run the stage that makes the maps first")
    scored = [s for s in samples if s.mask is not None]
    there = {path.name for path in folder.iterdir()}
    if missing := [s.id for s in scored if f"{s.id}.npz" not in there]:
        raise MapsError(
            f"{folder}: maps of {len(missing)} of {len(scored)} images are missing, first {first_five(missing)}; "
            "remove done.json beside the maps and make them again: those that are there stay"
        )
    return scored


def check_classes(path: Path, arrays: Arrays, num_classes: int) -> None:
    """Refuse maps of more classes than there are.

    Raises:
        MapsError: an id in `keys` is no class.
    """
    keys = arrays["keys"].astype(np.int64)
    if (lowest := int(keys.min())) < 0:
        raise MapsError(
            f"{path}: names class {lowest} in its `keys`; delete it and done.json beside the maps and make them again"
        )
    if (largest := int(keys.max())) >= num_classes:
        raise MapsError(
            f"{path}: holds a map of class {largest}, but there are {num_classes} classes, 0 to {num_classes - 1};"
            " the maps belong to another benchmark"
        )


def lacking(arrays: Collection[str], rule: str) -> list[str]:
    """Maps that a rule, or one of `SWEEPS`, needs and a file does not hold.

    Args:
        arrays: of one file, or their names.
        rule: of `ops.cam.RULES`, or a map's own name.
    """
    return [name for name in RULES.get(rule, (rule,)) if name not in arrays]


def usable_rules(arrays: Arrays, rules: Iterable[str]) -> tuple[str, ...]:
    """Those of the rules whose maps are in the file."""
    return tuple(rule for rule in rules if not lacking(arrays, rule))


def predictions(arrays: Arrays, rules: Iterable[str]) -> dict[str, Tensor]:
    """Labels (H, W) int64 of each rule; rules whose maps are not in the file are left out."""
    usable, keys = usable_rules(arrays, rules), torch.as_tensor(arrays["keys"].astype(np.int64))
    maps = _tensors(arrays, {name for rule in usable for name in RULES[rule]})
    return {rule: labels_from_maps(combine(maps, rule), keys) for rule in usable}


def foreground_scores(arrays: Arrays, name: str) -> Tensor:
    """Foreground maps that a constant background threshold in 0..1 can be laid over.

    SFC's maps are shaped for a background channel of their own (foreground x 2, sfc.md section 6): each is divided by
    its maximum, which undoes the factor. `TOKEN_MAPS` are normalised by class already and are used as they are.

    Args:
        arrays: of one file.
        name: one of `SWEEPS` whose maps are in the file.

    Returns:
        (k - 1, H, W) float32.
    """
    if name not in RULES:
        return _tensors(arrays, (name,))[name][1:]
    scores = combine(_tensors(arrays, RULES[name]), name)[1:]
    # an empty map stays empty
    return scores / scores.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def control_predictions(sample: Sample, keys: NDArray[np.integer], size: tuple[int, int]) -> dict[str, Tensor]:
    """Labels of `CONTROLS`, a pure function of the sample's id."""
    rng = np.random.default_rng(zlib.crc32(sample.id.encode()))
    ids = np.asarray(keys, dtype=np.int64)
    tag = int(rng.choice(ids[1:])) if len(ids) > 1 else 0
    return {"tags": torch.full(size, tag), "chance": torch.as_tensor(rng.choice(ids, size=size))}


def _tensors(arrays: Arrays, names: Iterable[str]) -> dict[str, Tensor]:
    """Those of the maps that are in the file, in float32."""
    return {name: torch.as_tensor(arrays[name].astype(np.float32)) for name in names if name in arrays}
