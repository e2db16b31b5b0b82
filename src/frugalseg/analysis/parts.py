"""Who claims a shared part: mean class logits on bodies that a head and a tail class have in common.

Needs a miniature world's `Parts/<id>.png` (1 body) and `world.json` (`pairs`), and maps written with `save_logits`.
This is the phenomenon that SFC is about (sfc.md section 1; miniature.md A.4.2).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from frugalseg.analysis.maps import read_maps
from frugalseg.data.base import Sample
from frugalseg.data.io import read_mask
from frugalseg.errors import MapsError
from frugalseg.ops.cam import resize

BODY = 1


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
        MapsError: the maps hold no logits.
    """
    record = root / "world.json"
    if not record.is_file() or "pairs" not in (world := json.loads(record.read_text())):
        return {}
    sums = np.zeros((2, 2))
    pixels = np.zeros(2)
    for sample in samples:
        if sample.mask is None or sample.tags is None:
            continue
        present = {tag + 1 for tag in sample.tags}
        involved = [(owner, pair) for pair in world["pairs"] for owner in (0, 1) if pair[owner] in present]
        if not involved:
            continue
        arrays = read_maps(folder / f"{sample.id}.npz")
        if "logits" not in arrays:
            raise MapsError(f"{folder}: the maps hold no logits; make them with model.init_args.save_logits true")
        mask = read_mask(sample.mask, num_classes)
        body = np.asarray(Image.open(root / "Parts" / f"{sample.id}.png")) == BODY
        logits = resize(torch.as_tensor(arrays["logits"].astype(np.float32))[None], (mask.shape[0], mask.shape[1]))[0]
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
