"""Who is given the pixels of shared parts: shares that say how far head classes spread and tail classes are missed.

A pair is a head and a tail class whose objects have the same body and differ in the tip (miniature.md A.1). Counted
over all pairs and images together, so every share is one fraction of pixels, and its denominator stands beside it:

- `head_on_tail_body`: of the body pixels of tail objects, those where the head class has the larger LOGIT (ties are
  not its): the false-positive rate of the head class, whatever the image's tags say; `tail_on_head_body` is the mirror.
- in the MASKS of rule m0, within the image's tags: `head_on_tail_body_both`, of the body pixels of tail objects in
  images tagged with both classes those labelled head; `recall_<owner>_<part>`, of the pixels of a part those given
  their own class; `area_<owner>`, pixels labelled so over true pixels, above 1 where a class spreads. With `_mw` the
  same of rule mw.
- `pixels_<owner>_body`, `pixels_<owner>_tip`, `pixels_tail_body_both`: the denominators.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from frugalseg.analysis.maps import predictions
from frugalseg.analysis.parts import BODY, HEAD, OWNERS, TAIL, TIP, LogitMeans, PartsOfImage, images_with_parts
from frugalseg.data.base import Sample

RULES: Final = {"m0": "", "mw": "_mw"}
"""Rule -> ending of its keys: the classifier's own map, and the refined one; what is not in the files is left out."""
_PARTS: Final = {"body": BODY, "tip": TIP}


class Shares:
    """Fractions of pixels as the top of this module defines them."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.pixels: Counter[str] = Counter()
        self.of: dict[str, str] = {}
        """Share -> its denominator."""

    def add(self, image: PartsOfImage) -> None:
        """Count one image."""
        labels = {RULES[rule]: found.numpy() for rule, found in predictions(image.arrays, RULES).items()}
        for pair in image.pairs:
            for owner in (HEAD, TAIL):
                if pair[owner] in image.present:
                    self._add_object(image, pair, owner, labels)

    def _add_object(
        self, image: PartsOfImage, pair: tuple[int, int], owner: int, labels: dict[str, NDArray[np.int64]]
    ) -> None:
        """Count the objects of one class of a pair; `labels` by the ending of their keys."""
        name, own, rival = OWNERS[owner], pair[owner], pair[1 - owner]
        true = image.mask == own
        where = {part: true & (image.parts == number) for part, number in _PARTS.items()}
        body = where["body"]
        above = (image.logits[rival - 1] > image.logits[own - 1])[torch.as_tensor(body)]
        self._count(f"{OWNERS[1 - owner]}_on_{name}_body", int(above.sum()), f"pixels_{name}_body")
        for part, inside in where.items():
            self.pixels[f"pixels_{name}_{part}"] += int(inside.sum())
        self.pixels[f"pixels_{name}"] += int(true.sum())
        both = owner == TAIL and rival in image.present
        if both:
            self.pixels["pixels_tail_body_both"] += int(body.sum())
        for ending, found in labels.items():
            for part, inside in where.items():
                hits = int((found == own)[inside].sum())
                self._count(f"recall_{name}_{part}{ending}", hits, f"pixels_{name}_{part}")
            self._count(f"area_{name}{ending}", int((found == own).sum()), f"pixels_{name}")
            if both:
                hits = int((found == rival)[body].sum())
                self._count(f"head_on_tail_body_both{ending}", hits, "pixels_tail_body_both")

    def _count(self, share: str, hits: int, denominator: str) -> None:
        self.hits[share] += hits
        self.of[share] = denominator

    def values(self) -> dict[str, float]:
        """Shares and denominators by key; what has no pixels is left out."""
        shares = {share: self.hits[share] / self.pixels[of] for share, of in self.of.items() if self.pixels[of]}
        return shares | {name: float(pixels) for name, pixels in self.pixels.items() if pixels}


def shared_part_values(folder: Path, root: Path, samples: Sequence[Sample], num_classes: int) -> dict[str, float]:
    """Mean logits (`LogitMeans`) and shares (`Shares`) on shared parts, each file read once.

    Args:
        folder: maps with `logits`.
        root: the world; elsewhere nothing is measured.
        samples: images of the split.
        num_classes: K.

    Raises:
        MapsError: the maps are missing or damaged, or hold no logits of these classes.
        DatasetError: `world.json`, a mask or a part image is missing or damaged.
    """
    means, shares = LogitMeans(), Shares()
    for image in images_with_parts(folder, root, samples, num_classes):
        means.add(image)
        shares.add(image)
    return means.values() | shares.values()
