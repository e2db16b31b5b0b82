"""Dense terms of other methods, for comparison or in place of geometric matching: EsViT, DenseCL and PixPro.

Facts of the three losses: golden/ssl/README.md. All compute in float32 at least; the teacher's side gets no gradient.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.ops.constants import constants
from frugalseg.ops.precision import at_least_float32
from frugalseg.papers.mevt.losses import STUDENT_TEMPERATURE, cross_entropy, teacher_probabilities


def closest(features: Tensor, others: Tensor) -> Tensor:
    """For each vector the other image's most similar one by cosine, the first one on ties.

    Args:
        features: (B, T, D).
        others: (B, U, D).

    Returns:
        (B, T) int64 in 0..U-1.
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        one, other = (F.normalize(at_least_float32(x), dim=-1) for x in (features, others))
        return (one @ other.transpose(1, 2)).argmax(dim=-1)


def region_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    centre: Tensor,
    teacher_temperature: float,
    student_temperature: float = STUDENT_TEMPERATURE,
) -> Tensor:
    """EsViT's region term: each cell predicts the teacher's distribution of the cell whose feature is the closest.

    Mean over cells, images, and ordered pairs of different views. EsViT's loss is half of it plus half of `dino_loss`
    (golden/ssl/esvit_region).

    Args:
        student: logits (B, T_v, K) of all views, the global ones first.
        teacher: logits (B, T_a, K) of the global views.
        student_features: (B, T_v, D) of all views.
        teacher_features: (B, T_a, D) of the global views.
        centre: (K,) or broadcast against (B, T_a, K).
        teacher_temperature: T_t.
        student_temperature: of the student.

    Raises:
        ValueError: there is no pair of different views.
    """
    terms = []
    for a, logits in enumerate(teacher):
        targets = teacher_probabilities(logits, centre, teacher_temperature)
        for v, predicted in enumerate(student):
            if v != a:
                match = closest(student_features[v], teacher_features[a])
                found = targets.take_along_dim(match[..., None], dim=1)
                terms.append(cross_entropy(found, predicted, student_temperature).mean())
    if not terms:
        raise ValueError(f"{len(teacher)} teacher and {len(student)} student views have no pair of different views")
    return torch.stack(terms).mean()


def queue_contrast(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.2) -> Tensor:
    """InfoNCE of queries with one positive each and a queue of negatives: MoCo's loss, and DenseCL's global one.

    Args:
        query: (N, D) student vectors, of any length.
        key: (N, D) teacher vectors, of any length.
        queue: (D, Q) unit vectors of earlier steps.
        temperature: of the logits.
    """
    query, key = F.normalize(at_least_float32(query), dim=-1), F.normalize(at_least_float32(key.detach()), dim=-1)
    with torch.autocast(query.device.type, enabled=False):
        negatives = query @ queue.detach().to(query.dtype)
    positive = (query * key).sum(dim=-1, keepdim=True)
    logits = torch.cat([positive, negatives], dim=-1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def dense_contrast(query: Tensor, key: Tensor, match: Tensor, queue: Tensor, temperature: float = 0.2) -> Tensor:
    """DenseCL's dense term: `queue_contrast` of every cell with its matched cell (golden/ssl/densecl).

    Args:
        query: (B, T, D) student cells.
        key: (B, U, D) teacher cells of the other view.
        match: (B, T) of `closest` on the backbones' features.
        queue: (D, Q) unit vectors.
        temperature: of the logits.
    """
    matched = key.take_along_dim(match[..., None], dim=1)
    return queue_contrast(query.flatten(end_dim=1), matched.flatten(end_dim=1), queue, temperature)


def propagate(features: Tensor, values: Tensor, power: float = 2.0) -> Tensor:
    """PixPro's propagation: each cell becomes the sum of unit values, weighted by max(cos, 0)^power.

    Facts: golden/ssl/pixpro.

    Args:
        features: (B, D, h, w) that are compared.
        values: (B, E, h, w) that are propagated, scaled to unit length here.
        power: sharpness of the weights.

    Returns:
        (B, E, h, w).
    """
    grid = values.shape[-2:]
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(at_least_float32(features).flatten(2), dim=1)
        weights = (unit.transpose(1, 2) @ unit).clamp(min=0).pow(power)
        spread = F.normalize(at_least_float32(values).flatten(2), dim=1) @ weights.transpose(1, 2)
    return spread.reshape(*spread.shape[:2], *grid)


def cell_distance(box_a: Tensor, box_b: Tensor, grid: tuple[int, int]) -> Tensor:
    """Distance of cell centres of two views in their image, over the larger diagonal of the two views' cells.

    Args:
        box_a: (B, 4) x1, y1, x2, y2 of one view in its image; x1 > x2 where it is mirrored left to right.
        box_b: (B, 4) of the other one.
        grid: rows and columns of cells of both.

    Returns:
        (B, h * w, h * w), cells of `box_a` along dimension 1.
    """
    centres, diagonals = [], []
    for box in (at_least_float32(box_a), at_least_float32(box_b)):
        rows, columns = (torch.arange(n, dtype=box.dtype, device=box.device) + 0.5 for n in grid)
        cell = (box[:, 2:] - box[:, :2]) / constants((grid[1], grid[0]), box)
        steps = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(end_dim=1)
        centres.append(box[:, None, :2] + steps * cell[:, None])
        diagonals.append(torch.linalg.vector_norm(cell, dim=-1))
    apart = torch.cdist(centres[0], centres[1], compute_mode="donot_use_mm_for_euclid_dist")
    return apart / torch.maximum(*diagonals)[:, None, None]


def pixel_consistency(spread: Tensor, target: Tensor, positive: Tensor) -> Tensor:
    """PixPro's loss of one direction: -2 times the mean cosine of the pairs of cells that lie close to each other.

    Args:
        spread: (B, E, h, w) of `propagate` in the student's view.
        target: (B, E, h, w) the teacher's projection of the other view.
        positive: (B, h * w, h * w) bool, `cell_distance` below 0.7; an image without any contributes 0.
    """
    with torch.autocast(spread.device.type, enabled=False):
        one = F.normalize(at_least_float32(spread).flatten(2), dim=1)
        other = F.normalize(at_least_float32(target.detach()).flatten(2), dim=1)
        cosine = one.transpose(1, 2) @ other
    chosen = positive.to(cosine.dtype)
    return -2 * ((cosine * chosen).sum(dim=(1, 2)) / (chosen.sum(dim=(1, 2)) + 1e-6)).mean()
