"""What passes of CTI's net give, and the two operations on them (cti.md sections 3 and 4)."""

from typing import NamedTuple

import torch
from torch import Tensor

from frugalseg.papers.cti.blocks import AttentionSums


class Scores(NamedTuple):
    """What the last block's tokens say about a batch."""

    token_logits: Tensor
    """(N, C) mean over D of each class token; the background token is not classified."""
    patch_logits: Tensor
    """(N, C) spatial mean of the patch head's class channels, before the ReLU."""
    maps: Tensor
    """(N, K, h, w) R: the patch head after its ReLU."""


class Pass(NamedTuple):
    """One forward pass."""

    scores: Scores
    rows: Tensor | None
    """(N, K, h, w) mt: attention of class tokens to patches, summed over blocks."""
    patches: Tensor | None
    """(N, P, P) pa: attention of patches to patches, summed over blocks."""
    tokens: Tensor
    """(N, K, D) T: class tokens after block `infusion`, before anything is infused."""


class Trunk(NamedTuple):
    """Two views after the blocks that all passes of a training step share."""

    view1: Tensor
    """(B, K + P, D)."""
    view2: Tensor
    """(B, K + P, D)."""
    sums: AttentionSums
    """Of view 1, to be continued."""
    grid: tuple[int, int]


class Branches(NamedTuple):
    """The passes of one training step behind the trunk (cti.md section 4)."""

    plain1: Scores
    """P1: view 1."""
    plain2: Scores
    """P2: view 2."""
    rows: Tensor | None
    """(B, K, h, w) mt of P1 over the last `fused_blocks` blocks."""
    patches: Tensor | None
    """(B, P, P) pa of P1 over the blocks behind the infusion."""
    intra: Tensor | None
    """(B, K, h, w) R of PI: view 1 with the tokens of view 2 infused."""
    cross: Tensor | None
    """(B, K, h, w) R of PX: view 1 with class prototypes infused."""
    cross_rows: Tensor | None
    """(B, K, h, w) mt of PX over the blocks behind the infusion."""


def refine(patches: Tensor, maps: Tensor) -> Tensor:
    """Spread maps by patch affinity: Q_k(i) = sum_j pa(i, j) F_k(j) (cti.md section 3).

    Args:
        patches: (N, P, P).
        maps: (N, k, h, w).

    Returns:
        (N, k, h, w).
    """
    return (maps.flatten(2) @ patches.transpose(1, 2)).reshape(maps.shape)


def infuse(x: Tensor, tokens: Tensor, count: int) -> Tensor:
    """Replace class tokens by their mean with others; patches stay (cti.md sections 4.3 and 4.4).

    Args:
        x: (N, K + P, D).
        tokens: (N, k, D), for the last k of the K class tokens.
        count: K.

    Returns:
        (N, K + P, D).
    """
    first = count - tokens.shape[1]
    return torch.cat([x[:, :first], (x[:, first:count] + tokens.to(x.dtype)) / 2, x[:, count:]], dim=1)
