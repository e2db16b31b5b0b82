"""Global losses of a student and its teacher: DINO's, and iBOT's on masked cells (mevt.md c.3, c.6)."""

import torch
from torch import Tensor

from frugalseg.ops.assignment import Reduce
from frugalseg.ops.precision import at_least_float32
from frugalseg.papers.mevt.losses import STUDENT_TEMPERATURE, cross_entropy, teacher_probabilities


def dino_loss(
    student: Tensor,
    teacher: Tensor,
    centre: Tensor,
    teacher_temperature: float,
    student_temperature: float = STUDENT_TEMPERATURE,
) -> Tensor:
    """L_g: each student view predicts the teacher's distribution of every other, global view (golden/ssl/dino_ce).

    Mean over the A * V - A ordered pairs of different views and over the batch. As log-softmax enters linearly, each
    teacher view needs one product with the sum over the student's other views, not one per pair.

    Args:
        student: (V, B, K) logits of all views, the global ones first.
        teacher: (A, B, K) logits of the global views, A <= V, in the same order.
        centre: (K,) or broadcast against (A, B, K).
        teacher_temperature: T_t.
        student_temperature: of the student.

    Raises:
        ValueError: there is no pair of different views.
    """
    pairs = _number_of_pairs(student, teacher)
    targets = teacher_probabilities(teacher, centre, teacher_temperature)
    predicted = (at_least_float32(student) / student_temperature).log_softmax(dim=-1)
    others = predicted.sum(dim=0) - predicted[: len(teacher)]
    return -(targets * others).sum(dim=-1).mean(dim=-1).sum() / pairs


@torch.no_grad()
def update_centre(centre: Tensor, teacher: Tensor, momentum: float = 0.9, reduce: Reduce | None = None) -> Tensor:
    """The centre after a step: momentum * centre + (1 - momentum) * mean of the teacher's rows on all ranks.

    Call it after the loss. Also for the centres of patches and regions: rows are views, images and tokens alike.

    Args:
        centre: K values in any shape.
        teacher: (..., K) raw logits.
        momentum: of the running mean.
        reduce: sums a tensor over ranks; None for a single rank.

    Returns:
        New tensor of the shape of `centre`.
    """
    rows = at_least_float32(teacher).flatten(end_dim=-2)
    # sum and count in one message; ranks may hold different numbers of rows
    sums = torch.cat([rows.sum(dim=0), rows.new_full((1,), len(rows))])
    sums = sums if reduce is None else reduce(sums)
    mean = (sums[:-1] / sums[-1]).to(centre.dtype).view_as(centre)
    return centre * momentum + mean * (1 - momentum)


def masked_cell_loss(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    centre: Tensor,
    teacher_temperature: float,
    student_temperature: float = STUDENT_TEMPERATURE,
) -> Tensor:
    """Term of iBOT: cells that were masked for the student predict the teacher's distribution in the same view.

    Mean over the masked cells of an image, then over images and views; an image without masked cells contributes 0 and
    still counts (golden/ssl/ibot).

    Args:
        student: (V, B, T, K) logits of cells.
        teacher: (V, B, T, K) logits of the same cells, unmasked.
        mask: (V, B, T) bool, True where masked for the student.
        centre: (K,) or broadcast against (V, B, T, K).
        teacher_temperature: T_t of cells.
        student_temperature: of the student.
    """
    terms = cross_entropy(teacher_probabilities(teacher, centre, teacher_temperature), student, student_temperature)
    counted = mask.to(terms.dtype)
    return ((terms * counted).sum(dim=-1) / counted.sum(dim=-1).clamp(min=1)).mean()


def _number_of_pairs(student: Tensor, teacher: Tensor) -> int:
    """Ordered pairs of a teacher's view and another one."""
    views, leading = len(student), len(teacher)
    if not 0 < leading <= views or views < 2:
        raise ValueError(f"{leading} teacher and {views} student views have no pair of different views")
    return leading * (views - 1)
