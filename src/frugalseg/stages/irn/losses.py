"""IRN's losses over pairs of near cells (Ahn et al., CVPR 2019, section 4; sfc.md 7.2).

There are some 2 million pairs per image (radius 10, 128 x 128 cells), so that the images are dealt with a few at a time
and the gradient of each is taken at once: the weight of every pair is known from the labels alone.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from frugalseg.ops.constants import constants
from frugalseg.ops.random_walk import affinity_from_edges, path_offsets
from frugalseg.stages.irn.pairs import ACROSS, BACKGROUND, FOREGROUND, at_partner, at_sources, count_kinds

EPS = 1e-5

AT_ONCE = {"cpu": 1}
"""Images whose pairs are in memory together; one image stays in a CPU's cache."""
AT_ONCE_ELSEWHERE = 8


class Terms(NamedTuple):
    """Means over pairs of one kind, without weight, and the total, which alone carries a gradient."""

    background: Tensor
    """Affinity loss of pairs within the background."""
    foreground: Tensor
    """Affinity loss of pairs within one foreground class."""
    across: Tensor
    """Affinity loss of pairs of different classes."""
    displacement_foreground: Tensor | None
    """Distance between the difference of displacements and the offset."""
    displacement_background: Tensor | None
    """Size of the difference of displacements."""
    total: Tensor
    """((background + foreground) / 2 + across) / 2, and the mean of the last two where there are displacements."""


def affinity_sums(edge: Tensor, kinds: Tensor, radius: int) -> Tensor:
    """Cross-entropies of the affinities, summed by kind of pair.

    Args:
        edge: (N, h, w) in [0, 1].
        kinds: (N, P, h', w') of `pair_kinds`.
        radius: pairs are closer than that, in cells.

    Returns:
        (3,): background and foreground pairs, which should be alike, and pairs across, which should not.
    """
    affinity = at_sources(affinity_from_edges(edge, radius), radius)
    across = kinds == ACROSS
    # one logarithm per pair: a pair has one kind
    likelihood = torch.log(torch.where(across, 1 - affinity, affinity) + EPS)
    masks = (kinds == BACKGROUND, kinds == FOREGROUND, across)
    return -torch.stack([torch.where(mask, likelihood, 0).sum() for mask in masks])


def displacement_sums(displacement: Tensor, kinds: Tensor, radius: int) -> Tensor:
    """Errors of the displacements, summed over both axes by kind of pair.

    Args:
        displacement: (N, 2, h, w), dy and dx in cells.
        kinds: (N, P, h', w') of `pair_kinds`.
        radius: pairs are closer than that, in cells.

    Returns:
        (2,): foreground pairs, whose displacements should differ by their offset, and background pairs, where they
        should not differ.
    """
    source = at_sources(displacement, radius)
    sums = []
    for offset, kind in zip(path_offsets(radius).tolist(), kinds.unbind(1), strict=True):
        foreground = (kind == FOREGROUND).unsqueeze(1)
        wanted = torch.cat([foreground * float(step) for step in offset], dim=1)
        error = (source - at_partner(displacement, offset, radius) - wanted).abs()
        background = (kind == BACKGROUND).unsqueeze(1)
        sums.append(torch.stack([(error * foreground).sum(), (error * background).sum()]))
    return torch.stack(sums).sum(dim=0)


class _PairSums(torch.autograd.Function):
    """All sums and their weighted total, a few images at a time; only the total is differentiable, and only once."""

    @staticmethod
    def forward(
        ctx: Any, edge: Tensor, displacement: Tensor | None, kinds: Tensor, radius: int, weight: Tensor, at_once: int
    ) -> tuple[Tensor, Tensor]:
        maps = [edge] if displacement is None else [edge, displacement]
        sums, wanted = torch.zeros_like(weight), any(ctx.needs_input_grad)
        gradients: list[list[Tensor]] = []
        for start in range(0, len(edge), at_once):
            part = slice(start, start + at_once)
            leaves = [m[part].detach().requires_grad_(wanted) for m in maps]
            with torch.set_grad_enabled(wanted):
                found = affinity_sums(leaves[0], kinds[part], radius)
                if displacement is not None:
                    found = torch.cat([found, displacement_sums(leaves[1], kinds[part], radius)])
                if wanted:
                    gradients.append(list(torch.autograd.grad(found @ weight, leaves)))
            sums += found.detach()
        ctx.save_for_backward(*(torch.cat(parts) for parts in zip(*gradients, strict=True)))
        ctx.mark_non_differentiable(sums)
        return sums @ weight, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [saved * total for saved in ctx.saved_tensors]
        return (*gradients, *[None] * (6 - len(gradients)))


def irn_loss(
    edge: Tensor,
    kinds: Tensor,
    displacement: Tensor | None = None,
    radius: int = 10,
    counts: Tensor | None = None,
    at_once: int | None = None,
) -> Terms:
    """All terms of one pass, in float32 or what is wider.

    Args:
        edge: (N, h, w) logits.
        kinds: (N, P, h', w') of `pair_kinds`.
        displacement: (N, 2, h, w), or None to leave its terms out.
        radius: that of `kinds`.
        counts: (3,) number of pairs of each kind that the sums are divided by; None for those of `kinds`. With several
            processes their mean over the ranks: the mean of the ranks' gradients then is that of one process.
        at_once: images whose pairs are in memory together; None takes 1 on a CPU, else 8.

    Returns:
        `Terms`.

    Raises:
        ValueError: the map has no sources, or `kinds` has another size.
    """
    at_once = at_once or AT_ONCE.get(edge.device.type, AT_ONCE_ELSEWHERE)
    expected = (len(edge), len(path_offsets(radius)), *at_sources(edge, radius).shape[1:])
    if tuple(kinds.shape) != expected:
        raise ValueError(f"kinds of pairs must be {expected} for edges {tuple(edge.shape)}, not {tuple(kinds.shape)}")
    with torch.autocast(edge.device.type, enabled=False):
        wide = torch.promote_types(edge.dtype, torch.float32)
        background, foreground, across = (count_kinds(kinds) if counts is None else counts).to(wide)
        divisors, shares = [background, foreground, across], [0.25, 0.25, 0.5]
        if displacement is not None:
            # two axes
            divisors, shares = [*divisors, 2 * foreground, 2 * background], [*shares, 0.5, 0.5]
            displacement = displacement.to(wide)
        divisor = torch.stack(divisors) + EPS
        weight = constants(shares, divisor) / divisor
        total, sums = cast(
            tuple[Tensor, Tensor],
            _PairSums.apply(edge.to(wide).sigmoid(), displacement, kinds, radius, weight, at_once),
        )
        alike, same, differ, *moved = (sums / divisor).unbind()
    return Terms(alike, same, differ, moved[0] if moved else None, moved[1] if moved else None, total)
