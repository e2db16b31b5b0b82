"""What a step of pretraining is given and what it gives back, whatever its losses are."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from frugalseg.ops.assignment import Reduce


class Moment(NamedTuple):
    """When and where a step runs.

    Attributes:
        temperature: T_t of the teacher.
        seeds: one per image, of `step.seeds_of`.
        reduce: sums a tensor over ranks; None for one.
        rank: number of this one.
        ranks: how many there are.
    """

    temperature: float
    seeds: Sequence[int]
    reduce: Reduce | None = None
    rank: int = 0
    ranks: int = 1

    def mean_count(self, rows: Tensor) -> Tensor | None:
        """What sums over rows are divided by: the mean number over ranks, as gradients are averaged; None for one rank.

        Args:
            rows: (n, ...) of this rank.
        """
        if self.reduce is None:
            return None
        return self.reduce(rows.new_tensor(float(len(rows)), dtype=torch.float32)) / self.ranks

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, rank by rank; the same on each.

        Args:
            rows: (n, d) of this rank; n may be 0 and differ between ranks.
        """
        if self.reduce is None:
            return rows
        counts = rows.new_zeros(self.ranks, dtype=torch.float32)
        counts[self.rank] = len(rows)
        numbers = self.reduce(counts).long().tolist()
        # sums of zeros and one rank's numbers are those numbers, so one collective serves all
        whole = rows.new_zeros(sum(numbers), rows.shape[1])
        begin = sum(numbers[: self.rank])
        whole[begin : begin + len(rows)] = rows
        return self.reduce(whole)


class Terms(NamedTuple):
    """Losses of a step, and what tells of collapse (mevt.md c.9)."""

    total: Tensor
    parts: dict[str, Tensor]
    """By name, unweighted; those that were computed."""
    monitors: dict[str, Tensor]
    kept: dict[str, Tensor]
    """What the losses' memory takes in after the step, by name; without a gradient."""


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy over the last axis, in nats."""
    each: Tensor = torch.special.entr(probabilities)
    return each.sum(dim=-1)
