"""Who claims a shared part: mean class logits on bodies that a head and a tail class have in common.

Needs a miniature world's `Parts/<id>.png` (1 body) and `world.json` (`pairs`), and maps written with `save_logits`.
This is the phenomenon that SFC is about (sfc.md section 1; miniature.md A.4.2).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from frugalseg.analysis.maps import read_maps
from frugalseg.data.base import Sample
from frugalseg.data.io import read_mask
from frugalseg.errors import DatasetError, MapsError
from frugalseg.ops.cam import resize

BODY, PARTS = 1, 3


def shared_part_logits(folder: Path, root: Path, samples: Sequence[Sample], num_classes: int) -> dict[str, float]:
    """Mean logits of both classes of each pair on the body they share, over all pixels of all images.

    Args:
        folder: maps with `logits`.
        root: the world.
        samples: images with masks.
        num_classes: K.

    Returns:
        `logit_tail_body_head`, `logit_tail_body_tail` (the body belongs to the tail class), `logit_head_body_head`,
        `logit_head_body_tail`; empty where the root is no miniature world.

    Raises:
        MapsError: the maps are missing or damaged, or hold no logits of these classes.
        DatasetError: `world.json`, a mask or a part image is missing or damaged.
    """
    pairs = _pairs(root / "world.json", num_classes)
    sums = np.zeros((2, 2))
    pixels = np.zeros(2)
    for sample in samples:
        present = {tag + 1 for tag in sample.tags or ()}
        involved = [(owner, pair) for pair in pairs for owner in (0, 1) if pair[owner] in present]
        if sample.mask is None or not involved:
            continue
        mask = read_mask(sample.mask, num_classes)
        size = (mask.shape[0], mask.shape[1])
        body = read_mask(root / "Parts" / f"{sample.id}.png", PARTS, size, sample.mask) == BODY
        logits = resize(_logits(folder / f"{sample.id}.npz", num_classes)[None], size)[0]
        for owner, pair in involved:
            inside = torch.as_tensor((mask == pair[owner]) & body)
            pixels[owner] += int(inside.sum())
            for rival in (0, 1):
                sums[owner, rival] += float(logits[pair[rival] - 1][inside].double().sum())
    names = ("head", "tail")
    return {
        f"logit_{names[owner]}_body_{names[rival]}": float(sums[owner, rival] / pixels[owner])
        for owner in (1, 0)
        for rival in (0, 1)
        if pixels[owner]
    }


def _pairs(record: Path, num_classes: int) -> list[tuple[int, int]]:
    """Head and tail class of each pair; empty where the file is not there or knows no pairs."""
    if not record.is_file():
        return []
    try:
        pairs = [(int(head), int(tail)) for head, tail in json.loads(record.read_text()).get("pairs", [])]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DatasetError(f"{record}: damaged ({error}); remove the world and make it again") from error
    if not all(0 < class_id < num_classes for pair in pairs for class_id in pair):
        raise DatasetError(f"{record}: a pair is not of classes 1 to {num_classes - 1}; is it another world's file?")
    return pairs


def _logits(path: Path, num_classes: int) -> Tensor:
    """Logits (C, h, w) of one file."""
    logits = read_maps(path).get("logits")
    if logits is None:
        raise MapsError(f"{path}: holds no logits; make the maps with model.init_args.save_logits true")
    if len(logits) != num_classes - 1:
        raise MapsError(
            f"{path}: logits are of {len(logits)} classes, not {num_classes - 1}; make the maps of this data set"
        )
    return torch.as_tensor(logits.astype(np.float32))
