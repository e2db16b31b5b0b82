"""CTI's losses as functions of maps and logits (cti.md section 4). None of them carries its weight."""

import torch
import torch.nn.functional as F
from torch import Tensor

from frugalseg.ops.cam import min_max
from frugalseg.papers.cti.passes import refine


def classification_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Multi-label soft-margin: mean sigmoid cross-entropy over images and classes (section 4.1).

    Args:
        logits: (B, C).
        tags: (B, C) 0/1.
    """
    return F.binary_cross_entropy_with_logits(logits, tags.to(logits.dtype))


def background_loss(
    maps: Tensor,
    rows: Tensor,
    patches: Tensor,
    tags: Tensor,
    detach_foreground: bool = False,
    skip_unlabelled: bool = False,
) -> Tensor:
    """Distance between the background token's refined map and one minus that of all present classes (section 4.2).

    The union over classes is taken before refinement; an image without tags has the target 1 everywhere.

    Args:
        maps: (B, K, h, w) R of P1, background first.
        rows: (B, K, h, w) mt of P1.
        patches: (B, P, P) pa of P1.
        tags: (B, C) 0/1.
        detach_foreground: no gradient to R of the classes (the authors' COCO branch); attention still gets one.
        skip_unlabelled: images without tags contribute 0. They stay in the mean's count, so that the mean over ranks is
            that of the whole batch.
    """
    classes = maps[:, 1:].detach() if detach_foreground else maps[:, 1:]
    # max, not amax: where several are equal the gradient goes to one of them, as the authors' does
    foreground = (rows[:, 1:] * classes * tags.to(maps.dtype)[:, :, None, None]).max(dim=1).values
    both = torch.stack([foreground, rows[:, 0] * maps[:, 0]], dim=1)
    spread = min_max(refine(patches, both))
    distance = (1 - spread[:, 0] - spread[:, 1]).abs().mean(dim=(1, 2))
    if skip_unlabelled:
        distance = torch.where(tags.gt(0).any(dim=1), distance, 0)
    return distance.mean()


def intra_loss(maps: Tensor, infused: Tensor) -> Tensor:
    """I-CTI: distance of R before and after infusing the tokens of the other view (section 4.3).

    All channels count, the background and absent classes too; both sides get gradients.

    Args:
        maps: (B, K, h, w) R of P1.
        infused: (B, K, h, w) R of PI.
    """
    return (min_max(maps) - min_max(infused)).abs().mean()


def cross_loss(maps: Tensor, infused: Tensor, rows: Tensor) -> Tensor:
    """C-CTI: distance between R and the fused map after infusing class prototypes (section 4.4).

    Args:
        maps: (B, C, h, w) R of P1, classes only.
        infused: (B, C, h, w) R of PX.
        rows: (B, C, h, w) mt of PX.
    """
    return (min_max(maps) - min_max(infused * rows)).abs().mean()
