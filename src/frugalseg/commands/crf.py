"""`frugalseg crf`: labels from a folder of class maps with a dense CRF, one folder of palette PNGs per kind.

Kinds: `crf`, the labels of a rule after the CRF; `seed_labels`, sure classes, sure background and 255 between, to learn
pixel affinities from (sfc.md 7.1, or constant thresholds, cti.md 8.1); `psa`, the same from two CRFs (cti.md 8.2). An
image without tags is background everywhere in every kind.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from frugalseg.analysis.maps import Arrays
from frugalseg.commands.label_inputs import foreground_of, keys_of, read_image_maps, scores_of
from frugalseg.commands.label_settings import check_kinds, check_rule, parse, words_of
from frugalseg.commands.label_work import Batch, Labeller, moved
from frugalseg.commands.labelling import label_split
from frugalseg.data.base import Sample
from frugalseg.data.io import read_image
from frugalseg.ops.crf import Kernels, dense_crf, pairwise
from frugalseg.ops.seeds import (
    alpha_unary,
    best_rows,
    constant_background,
    crf_labels,
    ids_of_rows,
    psa_seed_labels,
    sfc_seed_labels,
    threshold_seed_labels,
)

Kind = Literal["crf", "seed_labels", "psa"]


@dataclass(frozen=True)
class CrfSettings:
    """Section `crf`.

    Constants and alphas are for scores in 0..1: of SFC's shaped maps, each class's is divided by its maximum.

    Args:
        kinds: which folders are written.
        rule: maps of the kinds crf and psa: a name of ops.cam.RULES, or `cam` of methods without a background map.
        background: constant that replaces the maps' own background in kind crf, 0 to 1; null keeps it.
        alpha: kind crf starts from probabilities with the background (1 - largest)^alpha; null from labels.
        seeds: rule of the kind seed_labels.
        seed_rule: maps of the kind seed_labels.
        high: `threshold`: score above which a class is sure.
        low: `threshold`: score below which the background is sure.
        low_alpha: `psa`: of the CRF whose classes are sure.
        high_alpha: `psa`: of the CRF whose background is sure.
        iterations: mean-field steps.
        gt_prob: probability of a label that the CRF is given.
        kernels: widths and weights.
    """

    kinds: tuple[Kind, ...] = ("crf", "seed_labels")
    rule: str = "sum"
    background: float | None = None
    alpha: float | None = None
    seeds: Literal["sfc", "threshold"] = "sfc"
    seed_rule: str = "seed"
    high: float = 0.30
    low: float = 0.05
    low_alpha: float = 4.0
    high_alpha: float = 24.0
    iterations: int = 12
    gt_prob: float = 0.7
    kernels: Kernels = field(default_factory=Kernels)

    def __post_init__(self) -> None:
        check_kinds(self.kinds)
        check_rule("rule", self.rule, "crf" not in self.kinds or (self.background, self.alpha) != (None, None))
        check_rule("seed_rule", self.seed_rule, "seed_labels" not in self.kinds or self.seeds == "threshold")
        if not 0 <= self.low <= self.high <= 1 or not 0 <= (self.background or 0) <= 1:
            raise ValueError("0 <= low <= high <= 1 must hold, and background lie between 0 and 1")
        if self.background is not None and self.alpha is not None:
            raise ValueError("background and alpha are two ways to make a background for kind crf; set one of them")
        if not all(0 < alpha < inf for alpha in (self.low_alpha, self.high_alpha, self.alpha or 1.0)):
            raise ValueError("alpha, low_alpha and high_alpha must be above 0")
        if not 0 < self.gt_prob < 1 or self.iterations < 0:
            raise ValueError("gt_prob must lie between 0 and 1, and iterations be at least 0")


@dataclass(frozen=True)
class CrfLabeller(Labeller):
    """Labels after a CRF.

    Attributes:
        settings: of the section.
    """

    settings: CrfSettings

    def read(self, sample: Sample) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Keys, scores of each kind, and pixels (H, W, 3)."""
        pixels = torch.tensor(read_image(sample.image))
        path, size = self.map_file(sample), (pixels.shape[0], pixels.shape[1])
        arrays = read_image_maps(self.maps, sample, self.num_classes, size)
        return keys_of(arrays), {kind: self._scores(path, arrays, kind) for kind in self.kinds}, pixels

    def _scores(self, path: Path, arrays: Arrays, kind: str) -> Tensor:
        """What a kind starts from: scores with a background, but those of the classes alone for thresholds and PSA."""
        settings = self.settings
        if kind == "psa":
            return foreground_of(path, arrays, settings.rule)
        if kind == "seed_labels":
            take = scores_of if settings.seeds == "sfc" else foreground_of
            return take(path, arrays, settings.seed_rule)
        if settings.alpha is not None:
            return alpha_unary(foreground_of(path, arrays, settings.rule), settings.alpha)
        if settings.background is not None:
            return constant_background(foreground_of(path, arrays, settings.rule), settings.background)
        return scores_of(path, arrays, settings.rule)

    def prepare(self, batch: Batch, device: torch.device) -> Batch:
        """Build the lattices, which all kinds share."""
        pixels = torch.stack(batch.others).to(device)
        # without a class there is nothing to tell apart
        lattices = None if batch.bare else pairwise(pixels, self.settings.kernels)
        return replace(moved(batch, device), others=(pixels, lattices))

    def label(self, batch: Batch, kind: str) -> Tensor:
        """Labels of one kind, (N, H, W)."""
        settings, scores, (pixels, lattices) = self.settings, batch.scores[kind], batch.others
        soft = partial(dense_crf, pixels, iterations=settings.iterations, pairwise=lattices)
        refine = partial(
            crf_labels, image=pixels, num_labels=batch.keys.shape[1], iterations=settings.iterations,
            gt_prob=settings.gt_prob, pairwise=lattices,
        )  # fmt: skip
        if kind == "psa":
            both = [alpha_unary(scores, alpha) for alpha in (settings.low_alpha, settings.high_alpha)]
            low, high = soft(torch.stack(both, dim=1)).unbind(dim=1)
            return psa_seed_labels(low, high, batch.keys)
        if kind == "crf":
            rows = best_rows(soft(scores)) if settings.alpha is not None else refine(best_rows(scores))
            return ids_of_rows(rows, batch.keys)
        if settings.seeds == "sfc":
            return sfc_seed_labels(scores, batch.keys, refine)
        return threshold_seed_labels(scores, batch.keys, refine, settings.high, settings.low)


def run(argv: list[str]) -> int:
    """Write labels, `metrics.json` and `done.json` to the output folder."""
    request, settings = parse(words_of("crf", __doc__, CrfSettings, "seeds"), "crf", CrfSettings, argv)
    labeller = CrfLabeller(settings.kinds, request.options.maps, request.data.num_classes, settings)
    return label_split(request, labeller, settings, {"maps": request.options.maps})
