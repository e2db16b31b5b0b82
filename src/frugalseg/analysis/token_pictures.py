"""Pictures of CTI's maps (cti.md section 3): the background token's and every class's, before and after infusion."""

from collections.abc import Sequence

import numpy as np
import torch

from frugalseg.analysis.maps import Arrays, foreground_scores
from frugalseg.analysis.pictures import Picture, captioned, enlarged
from frugalseg.analysis.tables import caption
from frugalseg.data.base import Sample
from frugalseg.data.io import read_image, read_mask
from frugalseg.errors import MapsError
from frugalseg.ops.cam import labels_from_maps
from frugalseg.ops.palette import colourise, heat, overlay

ROWS = ("cam", "r", "infused", "mt", "f", "q")
"""Maps in the order of the rows: what infusion alters stands below what it was."""
THRESHOLD = 0.4
"""Of the background where none has been found: within the 0.30 to 0.44 that the authors scan (cti.md section 6)."""


def rows_in(arrays: Arrays) -> list[str]:
    """Maps of one file that have a row; none in files of SFC."""
    return [name for name in ROWS if name in arrays]


def token_panel(
    sample: Sample, arrays: Arrays, names: Sequence[str], palette: Picture, threshold: float = THRESHOLD
) -> Picture:
    """Image, labels and truth in one row; below, a row of heat overlays for every kind of map.

    Each row of maps begins with the background token's, which the labels do not use.

    Args:
        sample: with image and perhaps mask.
        arrays: of its file, with at least one of `ROWS`. The labels are those of `cam` where that is there, else of
            the first kind that is.
        names: K class names.
        palette: (256, 3).
        threshold: constant score of the background, which wins ties.

    Raises:
        MapsError: the maps are not of the image's size.
        MaskError: the mask is not, or is wrong in another way.
    """
    image, kinds, keys = read_image(sample.image), rows_in(arrays), arrays["keys"].astype(np.int64)
    size = image.shape[0], image.shape[1]
    if (found := arrays[kinds[0]].shape[1:]) != size:
        raise MapsError(
            f"{sample.id}.npz: maps are {found}, but the image {sample.image} is {size};"
            " make the maps of these very images"
        )
    scores = torch.cat([torch.full((1, *size), threshold), foreground_scores(arrays, kinds[0])])
    labels = labels_from_maps(scores, torch.as_tensor(keys)).numpy()
    painted = {f"labels: {caption(kinds[0])} above {threshold:g}": labels}
    if sample.mask is not None:
        truth = read_mask(sample.mask, len(names), size, sample.image, sample.code)
        painted["truth"] = truth.astype(np.int64)
    first = [captioned(enlarged(image), sample.id)]
    first += [captioned(enlarged(overlay(image, colourise(p, palette), 0.65)), text) for text, p in painted.items()]
    rows = [np.concatenate(first, axis=1)]
    for kind in kinds:
        what = "R before infusion" if kind == "r" and "infused" in kinds else caption(kind)
        owners = [f"{names[0]} token", *(names[key] for key in keys[1:])]
        strengths = zip(owners, arrays[kind].astype(np.float64), strict=True)
        heats = [captioned(enlarged(overlay(image, heat(m))), f"{what}: {owner}") for owner, m in strengths]
        rows.append(np.concatenate(heats, axis=1))
    return stacked(rows)


def stacked(rows: Sequence[Picture]) -> Picture:
    """Put pictures below one another; white fills up to the widest."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    )
