"""One step of self-distillation: views through student and teacher, matched points, losses (mevt.md c.7)."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from frugalseg.batch import ViewsBatch
from frugalseg.nn.ema import EMATeacher
from frugalseg.papers.mevt.matching import Matches, image_noise, match_views, points_per_image


class Rule(NamedTuple):
    """Settings of a step; names and defaults as in mevt.md c.

    Attributes:
        weights: of L_g, L_p and L_x; a term with 0 is not computed.
        sides: S, points per row of a pair of two global views, and of any other pair.
        most_points: of the prototype term, per rank; more are thinned out evenly over the images.
        pixel_points: M, of the pixel term, per rank.
        eps: of Sinkhorn.
        iterations: of Sinkhorn.
        radius: r over the image's longer side.
        least_overlap: part of the image's area that a pair must share.
        images_per_group: of the pixel term: negatives come from the same group alone; None for all of a rank's images.
            With one rank's share for n, one rank computes what several would (mevt.md c.8).
        masked: weight of the term of masked cells (iBOT); the student's global views are masked then, for all terms.
        mask_ratio: least and largest part that is hidden of those views of which anything is.
        region: weight of EsViT's term of regions.
        queue: earlier points of the teacher that Sinkhorn sees too while a step has less than 10 Kp; 0 for none.
    """

    weights: tuple[float, float, float] = (1.0, 1.0, 0.5)
    sides: tuple[int, int] = (14, 7)
    most_points: int = 32768
    pixel_points: int = 4096
    eps: float = 0.05
    iterations: int = 3
    radius: float = 0.125
    least_overlap: float = 0.01
    images_per_group: int | None = None
    masked: float = 0.0
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    region: float = 0.0
    queue: int = 8192

    @property
    def parts(self) -> set[str]:
        """Heads that the terms need (`student.Student`)."""
        needed = {name for name, weight in zip(("global", "prototype", "pixel"), self.weights, strict=True) if weight}
        # cells that were masked go through the image's head, as in iBOT
        return needed | ({"global"} if self.masked else set()) | ({"region"} if self.region else set())


class Seen(NamedTuple):
    """Views through both nets: two maps of each view, and all tokens. A is the number of global views, V of all."""

    teacher_maps: list[Tensor]
    """A of (B, D, h, w)."""
    student_maps: list[Tensor]
    """V, likewise."""
    teacher_tokens: Tensor
    """(A, B, C4)."""
    student_tokens: Tensor
    """(V, B, C4)."""
    teacher_cells: list[Tensor]
    """A of (B, C4, h, w), the last stage."""
    student_cells: list[Tensor]
    """V, likewise."""


def look(student: nn.Module, teacher: EMATeacher, batch: ViewsBatch, mask: Tensor | None = None) -> Seen:
    """Run the views: all global ones as one batch, all local ones as another.

    Args:
        student: in training mode.
        teacher: its moving average.
        batch: of B images.
        mask: (A, B, H / 32, W / 32) of truth: what the student does not see of the global views; None for nothing.
    """
    leading, local = (_view_major(batch["global_views"]), _view_major(batch["local_views"]))
    images = len(batch["id"])
    first = (
        student(leading) if mask is None else student(leading, mask.flatten(0, 1).to(leading.device, non_blocking=True))
    )
    own, theirs = [first, *([student(local)] if len(local) else [])], teacher(leading)
    return Seen(
        list(theirs.features.split(images)),
        [part for dense in own for part in dense.features.split(images)],
        torch.stack(theirs.token.split(images)),
        torch.stack([part for dense in own for part in dense.token.split(images)]),
        list(theirs.stages[-1].split(images)),
        [part for dense in own for part in dense.stages[-1].split(images)],
    )


def _view_major(views: Tensor) -> Tensor:
    """(B, V, 3, H, W) -> (V * B, 3, H, W), all images of the first view first."""
    return views.transpose(0, 1).flatten(0, 1)


def seeds_of(ids: Sequence[str], step: int, seed: int) -> list[int]:
    """A seed per image and step: what is drawn for an image depends neither on its batch nor on its rank."""
    return [zlib.crc32(f"{name}\0{step}\0{seed}".encode()) for name in ids]


def find_matches(seen: Seen, batch: ViewsBatch, rule: Rule, seeds: Sequence[int]) -> tuple[Matches, Tensor]:
    """Matched points of all pairs of views at random places in their cells.

    Args:
        seen: of `look`.
        batch: the same images.
        rule: `sides` and `least_overlap`.
        seeds: of `seeds_of`.

    Returns:
        The points, and a random priority (B, points per image) by which fewer can be chosen.
    """
    leading, views = len(seen.teacher_maps), len(seen.student_maps)
    pairs = leading * (views - 1)
    noise = image_noise(seeds, 2 * pairs + points_per_image(leading, views, rule.sides))
    offset = noise[:, : 2 * pairs].reshape(-1, pairs, 2)
    least = rule.least_overlap * batch["size"].prod(dim=1)
    maps = seen.teacher_maps, seen.student_maps
    matches = match_views(*maps, batch["box"], batch["flip"], rule.sides, offset, least)
    return matches, noise[:, 2 * pairs :]
