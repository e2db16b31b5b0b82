"""One step of self-supervision: views through student and teacher, matched points, three losses (mevt.md c.7)."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from frugalseg.batch import ViewsBatch
from frugalseg.nn.ema import EMATeacher
from frugalseg.ops.assignment import Reduce, sinkhorn
from frugalseg.papers.mevt.global_loss import dino_loss
from frugalseg.papers.mevt.losses import pixel_contrast, prototype_loss
from frugalseg.papers.mevt.matching import Matches, choose_points, image_noise, match_views, points_per_image
from frugalseg.papers.mevt.student import Student


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


class Terms(NamedTuple):
    """Losses of a step, and what tells of collapse (mevt.md c.9)."""

    total: Tensor
    parts: dict[str, Tensor]
    """`global`, `prototype`, `pixel`: unweighted, those that were computed."""
    teacher_logits: Tensor | None
    """(A, B, Kg) raw logits, for the centre."""
    monitors: dict[str, Tensor]


class Seen(NamedTuple):
    """Views through both nets: a map (B, D, h, w) of each view, and all tokens."""

    teacher_maps: list[Tensor]
    student_maps: list[Tensor]
    teacher_tokens: Tensor
    """(A, B, C4)."""
    student_tokens: Tensor
    """(V, B, C4)."""


def look(student: Student, teacher: EMATeacher, batch: ViewsBatch) -> Seen:
    """Run the views: all global ones as one batch, all local ones as another.

    Args:
        student: in training mode.
        teacher: its moving average.
        batch: of B images.
    """
    leading, local = (_view_major(batch["global_views"]), _view_major(batch["local_views"]))
    images = len(batch["id"])
    own = [student(leading), *([student(local)] if len(local) else [])]
    theirs = teacher(leading)
    return Seen(
        list(theirs.features.split(images)),
        [part for dense in own for part in dense.features.split(images)],
        torch.stack(theirs.token.split(images)),
        torch.stack([part for dense in own for part in dense.token.split(images)]),
    )


def _by_view(tokens: Tensor, rows: Tensor) -> Tensor:
    """(V * B, K) rows of (V, B, C4) tokens -> (V, B, K)."""
    return rows.reshape(*tokens.shape[:2], -1)


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


def run_step(
    student: Student,
    teacher: EMATeacher,
    batch: ViewsBatch,
    rule: Rule,
    centre: Tensor,
    temperature: float,
    seeds: Sequence[int],
    reduce: Reduce | None = None,
    ranks: int = 1,
) -> Terms:
    """Losses of a batch; nothing is updated here.

    Args:
        student: in training mode.
        teacher: its moving average.
        batch: of B images.
        rule: settings.
        centre: (Kg,) of the teacher's global logits.
        temperature: T_t of the teacher.
        seeds: one per image.
        reduce: sums a tensor over ranks; None for one.
        ranks: how many there are.
    """
    seen = look(student, teacher, batch)
    parts: dict[str, Tensor] = {}
    monitors: dict[str, Tensor] = {}
    raw = None
    if rule.weights[0]:
        with torch.no_grad():
            raw = _by_view(seen.teacher_tokens, teacher.module.global_logits(seen.teacher_tokens.flatten(0, 1)))  # type: ignore[operator]
        own = _by_view(seen.student_tokens, student.global_logits(seen.student_tokens.flatten(0, 1)))
        parts["global"] = dino_loss(own, raw, centre, temperature)
        monitors["student_entropy"] = entropy((own.detach() / 0.1).softmax(dim=-1).mean(dim=(0, 1)))
    if rule.weights[1] or rule.weights[2]:
        matches, priority = find_matches(seen, batch, rule, seeds)
        if rule.weights[1]:
            parts["prototype"], found = _prototypes(student, teacher, matches, priority, rule, reduce, ranks)
            monitors |= found
        if rule.weights[2]:
            parts["pixel"], found = _pixels(student, teacher, matches, priority, batch, rule, reduce, ranks)
            monitors |= found
    weighted = [w * parts[name] for w, name in zip(rule.weights, ("global", "prototype", "pixel"), strict=True) if w]
    return Terms(torch.stack(weighted).sum(), parts, raw, monitors)


def _prototypes(
    student: Student,
    teacher: EMATeacher,
    matches: Matches,
    priority: Tensor,
    rule: Rule,
    reduce: Reduce | None,
    ranks: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_p and its monitors."""
    most = rule.most_points // max(len(priority), 1)
    if len(matches.image) > rule.most_points:
        matches = matches.take(choose_points(matches, priority, most))
    with torch.no_grad():
        target = sinkhorn(teacher.module.dense_logits(matches.teacher), rule.eps, rule.iterations, reduce)  # type: ignore[operator]
    loss = prototype_loss(student.dense_logits(matches.student), target, count=_count(target, reduce, ranks))
    return loss, {"assignment_entropy": entropy(target.mean(dim=0)), "row_entropy": entropy(target).mean()}


def _pixels(
    student: Student,
    teacher: EMATeacher,
    matches: Matches,
    priority: Tensor,
    batch: ViewsBatch,
    rule: Rule,
    reduce: Reduce | None,
    ranks: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_x and its monitors."""
    # another order than the prototype term's, which has taken the lowest
    chosen = matches.take(choose_points(matches, 1 - priority, rule.pixel_points // max(len(priority), 1)))
    own = student.pixel_head(chosen.student)
    with torch.no_grad():
        theirs = teacher.module.pixel_head(chosen.teacher)  # type: ignore[operator]
    radius = rule.radius * batch["size"].max(dim=1).values.to(chosen.position)[chosen.image]
    count = _count(own, reduce, ranks)
    loss = pixel_contrast(
        own, theirs, chosen.image, chosen.position, radius, images_per_group=rule.images_per_group, count=count
    )
    return loss, {"embedding_std": own.detach().std(dim=0).mean()}


def _count(rows: Tensor, reduce: Reduce | None, ranks: int) -> Tensor | None:
    """What sums are divided by: the mean number of points over ranks, as gradients are averaged over them."""
    return None if reduce is None else reduce(rows.new_tensor(float(len(rows)))) / ranks


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy over the last axis, in nats."""
    each: Tensor = torch.special.entr(probabilities)
    return each.sum(dim=-1)
