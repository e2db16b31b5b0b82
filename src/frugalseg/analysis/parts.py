"""Parts that a head and a tail class have in common: reading them, and mean class logits on their bodies.

Needs a miniature world's `Parts/<id>.png` (1 body, 2 tip) and `world.json` (`pairs`), and maps written with
`save_logits`. This is the phenomenon that SFC is about (sfc.md section 1; miniature.md A.4.2); shares of pixels are
counted by `analysis.shared_parts`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugalseg.analysis.maps import Arrays, read_maps
from frugalseg.data.base import Sample
from frugalseg.data.io import read_mask
from frugalseg.errors import DatasetError, MapsError
from frugalseg.ops.cam import resize

BODY, TIP, PARTS = 1, 2, 3
HEAD, TAIL = 0, 1
OWNERS = ("head", "tail")
"""Names of the two classes of a pair, in its order."""


class PartsOfImage(NamedTuple):
    """One image that shows a class of a pair.

    Attributes:
        pairs: (head, tail) ids of those pairs of which a class is among the image's tags.
        present: ids of the image's tags.
        mask: (H, W) true class ids.
        parts: (H, W) 1 body, 2 tip.
        logits: (C, H, W).
        arrays: all that is in the file of maps.
    """

    pairs: tuple[tuple[int, int], ...]
    present: frozenset[int]
    mask: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    logits: Tensor
    arrays: Arrays


def images_with_parts(folder: Path, root: Path, samples: Sequence[Sample], num_classes: int) -> Iterator[PartsOfImage]:
    """Read the images that have a mask and show a class of a pair; none where the root is no miniature world.

    Args:
        folder: maps with `logits`.
        root: the world.
        samples: images of the split.
        num_classes: K.

    Raises:
        MapsError: the maps are missing or damaged, or hold no logits of these classes.
        DatasetError: `world.json`, a mask or a part image is missing or damaged.
    """
    pairs = _pairs(root / "world.json", num_classes)
    for sample in samples:
        present = frozenset(tag + 1 for tag in sample.tags or ())
        involved = tuple(pair for pair in pairs if present & set(pair))
        if sample.mask is None or not involved:
            continue
        mask = read_mask(sample.mask, num_classes)
        size = (mask.shape[0], mask.shape[1])
        parts = read_mask(root / "Parts" / f"{sample.id}.png", PARTS, size, sample.mask)
        path = folder / f"{sample.id}.npz"
        arrays = read_maps(path)
        logits = resize(_logits(path, arrays, num_classes)[None], size)[0]
        yield PartsOfImage(involved, present, mask, parts, logits, arrays)


class LogitMeans:
    """Mean logits of both classes of each pair on the body they share, over all pixels of all images."""

    def __init__(self) -> None:
        self.sums, self.pixels = np.zeros((2, 2)), np.zeros(2)

    def add(self, image: PartsOfImage) -> None:
        """Count one image."""
        for pair in image.pairs:
            for owner in (HEAD, TAIL):
                if pair[owner] not in image.present:
                    continue
                inside = torch.as_tensor((image.mask == pair[owner]) & (image.parts == BODY))
                self.pixels[owner] += int(inside.sum())
                for rival in (HEAD, TAIL):
                    self.sums[owner, rival] += float(image.logits[pair[rival] - 1][inside].double().sum())

    def values(self) -> dict[str, float]:
        """Means by key, where there are such pixels.

        Returns:
            `logit_tail_body_head`, `logit_tail_body_tail` (the body belongs to the tail class), `logit_head_body_head`,
            `logit_head_body_tail`.
        """
        return {
            f"logit_{OWNERS[owner]}_body_{OWNERS[rival]}": float(self.sums[owner, rival] / self.pixels[owner])
            for owner in (TAIL, HEAD)
            for rival in (HEAD, TAIL)
            if self.pixels[owner]
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


def _logits(path: Path, arrays: Arrays, num_classes: int) -> Tensor:
    """Logits (C, h, w) of one file."""
    logits = arrays.get("logits")
    if logits is None:
        raise MapsError(f"{path}: holds no logits; make the maps with model.init_args.save_logits true")
    if len(logits) != num_classes - 1:
        raise MapsError(
            f"{path}: logits are of {len(logits)} classes, not {num_classes - 1}; make the maps of this data set"
        )
    return torch.as_tensor(logits.astype(np.float32))
