"""MEVT's dense losses on matched points (mevt.md c.4, c.5), and the cross-entropy that all its losses share.

Everything is computed in float32 at least, whatever autocast says. No loss carries its weight. The teacher's side never
gets a gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.ops.precision import at_least_float32

STUDENT_TEMPERATURE = 0.1


def teacher_probabilities(logits: Tensor, centre: Tensor | float, temperature: float) -> Tensor:
    """Centred and sharpened teacher distribution: softmax((logits - centre) / temperature), without a gradient.

    Args:
        logits: (..., K).
        centre: broadcast against `logits`.
        temperature: T_t, positive.
    """
    return ((at_least_float32(logits.detach()) - centre) / temperature).softmax(dim=-1)


def cross_entropy(targets: Tensor, logits: Tensor, temperature: float = STUDENT_TEMPERATURE) -> Tensor:
    """Cross-entropy of soft targets, -sum_k q_k log softmax(s / temperature)_k, per row.

    Args:
        targets: (..., K) q, of sum 1.
        logits: (..., K) s.
        temperature: of the student.

    Returns:
        (...).
    """
    return -(targets * (at_least_float32(logits) / temperature).log_softmax(dim=-1)).sum(dim=-1)


def prototype_loss(
    logits: Tensor,
    assignment: Tensor,
    temperature: float = STUDENT_TEMPERATURE,
    count: Tensor | float | None = None,
) -> Tensor:
    """L_p: the student predicts the prototypes that the teacher's points were assigned to (mevt.md c.4).

    Args:
        logits: (N, Kp) student cosines at the matched points; N may be 0, then the loss is 0.
        assignment: (N, Kp) Q of `ops.assignment.sinkhorn` on the teacher's cosines at the same points.
        temperature: of the student.
        count: what the sum is divided by; None for N. With several ranks, whose gradients are averaged, the mean of N
            over ranks, which makes the loss that of all points at once.
    """
    terms = cross_entropy(assignment.detach(), logits, temperature)
    return terms.sum() / _divisor(len(terms), count)


def pixel_contrast(
    student: Tensor,
    teacher: Tensor,
    image: Tensor,
    position: Tensor,
    radius: Tensor | float,
    temperature: float = 0.1,
    images_per_group: int | None = None,
    count: Tensor | float | None = None,
) -> Tensor:
    """L_x: InfoNCE of points with negatives from the same image, except for close ones (mevt.md c.5, c.8).

    The negatives of a point are the teacher's points of other images of its group, and those of its own image that lie
    further than the radius, in coordinates of the image, from whichever pair of views they come.

    Args:
        student: (M, D) embeddings e of unit length; M may be 0, then the loss is 0.
        teacher: (M, D) embeddings f of unit length at the matched points.
        image: (M,) int64, number of each point's image in the batch.
        position: (M, 2) x, y of the points in their image.
        radius: r in the unit of `position`, one for all or (M,).
        temperature: tau.
        images_per_group: images 0..n-1 are one group, n..2n-1 the next: with one rank's share for n, one rank computes
            what many would. None for a single group.
        count: what the sum is divided by; None for M. See `prototype_loss`.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    radius = torch.as_tensor(radius, dtype=position.dtype, device=position.device).expand(len(position))
    total = student.sum() * 0
    for chosen in _groups(image, images_per_group):
        near = torch.cdist(position[chosen], position[chosen], compute_mode="donot_use_mm_for_euclid_dist")
        close = (image[chosen, None] == image[None, chosen]) & (near <= radius[chosen, None])
        own = torch.arange(len(chosen), device=image.device)
        close[own, own] = False
        with torch.autocast(student.device.type, enabled=False):
            similarity = student[chosen] @ teacher[chosen].T / temperature
        total = total + F.cross_entropy(similarity.masked_fill(close, -torch.inf), own, reduction="sum")
    return total / _divisor(len(student), count)


def _groups(image: Tensor, images_per_group: int | None) -> list[Tensor]:
    """Numbers of the points of each group of images that has points."""
    if images_per_group is None:
        return [torch.arange(len(image), device=image.device)] if len(image) else []
    group = image.div(images_per_group, rounding_mode="floor")
    return [(group == number).nonzero()[:, 0] for number in torch.unique(group).tolist()]


def _divisor(points: int, count: Tensor | float | None) -> Tensor | float:
    """Number to divide a sum by; never below 1, as a sum of no terms is 0."""
    if isinstance(count, Tensor):
        return count.clamp(min=1)
    return max(points if count is None else count, 1)
