"""Which kept features make which batch: the blocks and the order of the data modules, with a position."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from frugalseg.position import check_position


class RowOrder(DistributedSampler[list[int]]):
    """Yields the rows of this rank's batches.

    With a seed, epoch by epoch the permutation of `frugalseg.data.sampler.TrainSampler` (so that a probe meets images
    in the same order with and without kept features), in blocks of `world * batch_size`; a last incomplete one is left
    out unless it is the only one. Without a seed, every row once over all ranks.

    It derives from DistributedSampler because Lightning replaces every other sampler under DDP by its own.

    Args:
        count: number of rows.
        batch_size: rows per rank and step.
        seed: of the permutations; None for the rows' own order.
        rank: this process.
        world: number of processes.
        epoch: of the next iteration.
        start: batches that the next iteration (and only that one) leaves out: the position of a resumed fit.
        ahead: by how much Lightning's number of an epoch exceeds ours, see `TrainSampler`.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int | None = None,
        rank: int = 0,
        world: int = 1,
        epoch: int = 0,
        start: int = 0,
        ahead: int = 0,
    ) -> None:
        super().__init__(range(count), num_replicas=world, rank=rank, shuffle=seed is not None, seed=seed or 0)  # type: ignore[arg-type]
        self.count, self.world, self.shuffled = count, world, seed is not None
        # a split smaller than one block is one smaller block
        self.batch_size = min(batch_size, max(count // world, 1)) if self.shuffled else batch_size
        self.epoch, self.start, self.ahead = epoch, start, ahead

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration by Lightning's number."""
        self.epoch = epoch - self.ahead

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        if self.shuffled:
            return self.count // (self.batch_size * self.world)
        return -(-len(range(self.rank, self.count, self.world)) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Begin an epoch; `epoch` and `start` are read now, not when the first batch is asked for."""
        return self._batches(self.epoch, self.start)

    def _batches(self, epoch: int, start: int) -> Iterator[list[int]]:
        self.start = 0  # not in __iter__: a DataLoader with workers calls that twice and uses the second
        size = self.batch_size
        if not self.shuffled:
            mine = list(range(self.rank, self.count, self.world))
            yield from (mine[begin : begin + size] for begin in range(0, len(mine), size))
            return
        mixed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        order: list[int] = torch.randperm(self.count, generator=torch.Generator().manual_seed(mixed)).tolist()
        for step in range(start, len(self)):
            begin = (step * self.world + self.rank) * size
            yield order[begin : begin + size]


class RowLoader(DataLoader[Any]):
    """A loader that knows its position; its sampler is a `RowOrder`.

    Having `state_dict` also tells Lightning that resuming inside an epoch is safe.
    """

    given = 0
    """Batches of the current epoch that the consumer has got."""
    began = (0, 0)
    """(epoch, batches left out) of the current iteration."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Begin an epoch where the sampler says."""
        order = cast(RowOrder, self.sampler)
        self.began, self.given = (order.epoch, order.start), 0
        return self._counted(super().__iter__())

    def _counted(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self.given += 1
            yield batch

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, batches of it handed out so far)."""
        epoch, start = self.began
        return epoch, start + self.given

    def state_dict(self) -> dict[str, int]:
        """What a position counts: rows of the split, rows per step over all ranks, seed."""
        order = cast(RowOrder, self.sampler)
        return {"rows": order.count, "step": order.batch_size * order.world, "seed": order.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Check that a position inside an epoch means the same here.

        Args:
            state: `state_dict` of the fit that is resumed.

        Raises:
            CheckpointError: it does not, and the fit would go on inside an epoch.
        """
        check_position(cast(RowOrder, self.sampler).start, state, self.state_dict(), "features")
