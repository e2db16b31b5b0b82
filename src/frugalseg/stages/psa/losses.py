"""PSA's loss over pairs of near cells (Ahn and Kwak, CVPR 2018, section 3.2; cti.md 8.2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from frugalseg.stages.psa.pairs import PairMasks

EPS = 1e-5


class Losses(NamedTuple):
    """Mean over the pairs of each kind, and their weighted sum."""

    background: Tensor
    """-log a over pairs within the background."""
    foreground: Tensor
    """-log a over pairs within one foreground class."""
    different: Tensor
    """-log(1 - a) over pairs of two classes."""
    total: Tensor
    """background / 4 + foreground / 4 + different / 2: the three kinds are far from equally frequent."""


def affinity_loss(affinity: Tensor, pairs: PairMasks, counts: Tensor | None = None) -> Losses:
    """Cross-entropy of affinities, in float32 or what is wider.

    Args:
        affinity: (N, P, h, w) in [0, 1].
        pairs: masks of the same shape.
        counts: (3,) by which the sums are divided; None for the number of pairs here. With several processes their mean
            over the ranks, so that the mean of the ranks' gradients is that of one process.

    Returns:
        `Losses`; the term of a kind without pairs is 0.
    """
    with torch.autocast(affinity.device.type, enabled=False):
        affinity = affinity.to(torch.promote_types(affinity.dtype, torch.float32))
        alike, unlike = -torch.log(affinity + EPS), -torch.log(1 + EPS - affinity)
        counts = pairs.counts() if counts is None else counts
        background, foreground, different = (
            (mask * term).sum() / (count + EPS)
            for mask, term, count in zip(pairs, (alike, alike, unlike), counts.to(affinity.dtype), strict=True)
        )
        return Losses(background, foreground, different, background / 4 + foreground / 4 + different / 2)
