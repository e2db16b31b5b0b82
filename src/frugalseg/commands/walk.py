"""`frugalseg walk`: labels from class maps and pixel affinities by a random walk, one folder of palette PNGs per kind.

Kinds: `refined`, one walk of the classes against a constant background, by the rule of whoever made the edges, IRN or
PSA; `pseudo`, SFC's sum of two walks (sfc.md 7.3), from IRN's edges alone. An image without tags is background
everywhere in both kinds.
"""

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from frugalseg.commands.label_inputs import (
    foreground_of,
    held_edges,
    keys_of,
    read_edges,
    read_image_maps,
    require_files,
    scores_of,
)
from frugalseg.commands.label_settings import check_kinds, check_rule, parse, words_of
from frugalseg.commands.label_work import Batch, Labeller, moved
from frugalseg.commands.labelling import label_split
from frugalseg.data.base import Sample
from frugalseg.data.io import image_size
from frugalseg.errors import ConfigError
from frugalseg.ops.cam import RULES
from frugalseg.ops.seeds import constant_background
from frugalseg.ops.walk_labels import irn_label, psa_label, sfc_label


@dataclass(frozen=True)
class WalkSettings:
    """Section `walk`.

    Args:
        kinds: which folders are written.
        rule: maps that walk: a name of ops.cam.RULES, or `cam` of methods without a background map.
        background: constant that the classes must beat after their walk; IRN's largest class score is then 1.
        refined_exponent: of the scores before the walk of the kind refined; IRN has 1.
        exponent: of the scores before both walks of the kind pseudo.
        second_exponent: of the second walk's scores, upon the first.
        radius: of IRN's pairs, in cells; that of affinities is in their files.
        beta: exponent of the affinities.
        steps: length of the walk.
    """

    kinds: tuple[Literal["refined", "pseudo"], ...] = ("refined", "pseudo")
    rule: str = "walk"
    background: float = 0.25
    refined_exponent: float = 1.0
    exponent: float = 1.3
    second_exponent: float = 1.3
    radius: int = 5
    beta: float = 10.0
    steps: int = 256

    def __post_init__(self) -> None:
        check_kinds(self.kinds)
        check_rule("rule", self.rule, "pseudo" not in self.kinds)
        if not all(
            0 < value < inf for value in (self.refined_exponent, self.exponent, self.second_exponent, self.beta)
        ):
            raise ValueError("exponents and beta must be above 0")
        if self.radius < 2 or self.steps < 0 or not 0 <= self.background < inf:
            raise ValueError("radius must be at least 2, steps at least 0, and background not negative")


@dataclass(frozen=True)
class WalkLabeller(Labeller):
    """Labels after random walks.

    Attributes:
        settings: of the section.
        edges: folder of edges.
        held: which of `label_inputs.EDGES` it holds.
    """

    settings: WalkSettings
    edges: Path
    held: str

    def read(self, sample: Sample) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Keys, scores - the same for both kinds -, and edges."""
        path, size = self.map_file(sample), image_size(sample.image)
        arrays = read_image_maps(self.maps, sample, self.num_classes, size)
        if self.held == "affinity":
            scores = foreground_of(path, arrays, self.settings.rule)
        elif self.settings.rule in RULES:
            scores = scores_of(path, arrays, self.settings.rule)
        else:  # IRN does not look at the background's row
            scores = constant_background(foreground_of(path, arrays, self.settings.rule), 0.0)
        edges = read_edges(self.edges, sample, self.held, size)
        return keys_of(arrays), dict.fromkeys(self.kinds, scores), edges

    def prepare(self, batch: Batch, device: torch.device) -> Batch:
        """Take everything to the device."""
        return replace(moved(batch, device), others=tuple(edge.to(device) for edge in batch.others))

    def label(self, batch: Batch, kind: str) -> Tensor:
        """Labels of one kind, (N, H, W): one image after the other."""
        images = zip(batch.scores[kind], batch.others, batch.keys, strict=True)
        return torch.stack([self._of_one(*image, kind) for image in images])

    def _of_one(self, scores: Tensor, edge: Tensor, keys: Tensor, kind: str) -> Tensor:
        settings = self.settings
        walk = {"background": settings.background, "beta": settings.beta, "steps": settings.steps}
        if self.held == "affinity":
            return psa_label(scores, edge, keys, **walk)
        walk["radius"] = settings.radius
        if kind == "refined":
            return irn_label(scores, edge, keys, exponent=settings.refined_exponent, **walk)
        return sfc_label(
            scores, edge, keys, exponent=settings.exponent, second_exponent=settings.second_exponent, **walk
        )


def run(argv: list[str]) -> int:
    """Write labels, `metrics.json` and `done.json` to the output folder."""
    parser = words_of("walk", __doc__, WalkSettings, "labels")
    parser.add_argument("--edges", type=Path, required=True, help="folder of <id>.npz files with `edge` or `affinity`")
    request, settings = parse(parser, "walk", WalkSettings, argv)
    maps, edges = request.options.maps, request.options.edges
    require_files(edges, request.samples, "edges")
    held = held_edges(edges, request.samples[0])
    if held == "affinity" and "pseudo" in settings.kinds:
        raise ConfigError(
            f"walk.kinds: pseudo needs IRN's edges, but {edges} holds PSA's affinities; make refined alone"
        )
    labeller = WalkLabeller(settings.kinds, maps, request.data.num_classes, settings, edges, held)
    return label_split(request, labeller, settings, {"maps": maps, "edges": edges})
