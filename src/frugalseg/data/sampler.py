"""Who gets which image when: a seeded training sampler with a position, and an exact one for evaluation.

Both derive from DistributedSampler for one reason: Lightning replaces every other sampler under DDP by its own.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data.distributed import DistributedSampler

Draw = tuple[int, int]
"""(index of the sample, number of the draw); see `draw_rng`."""


def draw_rng(seed: int, draw: int) -> np.random.Generator:
    """The random numbers of one draw: a pure function of (seed, draw), whatever worker or rank makes the item."""
    return np.random.default_rng([seed, draw])


class TrainSampler(DistributedSampler[list[Draw]]):
    """Yields this rank's batches of a seeded permutation, one per epoch.

    Block b of `world * batch_size` neighbours in the permutation is global step b; rank r takes the r-th slice of it.
    So the slices of all ranks put together are the batch of one rank with `world` times the batch size.

    Args:
        n: number of samples.
        batch_size: samples per rank and step.
        seed: seed of the permutations.
        rank: this process.
        world: number of processes.
        drop_last: leave out the last incomplete block. If kept, it is split evenly; one that is too small to give every
            rank a sample is left out all the same, since ranks must take the same number of steps.
        epoch: epoch of the next iteration.
        start: batches that the next iteration (and only that one) leaves out: the position of a resumed fit.
        ahead: by how much Lightning's number of an epoch exceeds ours: it counts an epoch that `max_steps` cut off as
            done, and goes on with its rest under the next number.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        epoch: int = 0,
        start: int = 0,
        ahead: int = 0,
    ) -> None:
        super().__init__(range(n), num_replicas=world, rank=rank, shuffle=True, seed=seed, drop_last=drop_last)  # type: ignore[arg-type]
        self.n, self.batch_size, self.world = n, batch_size, world
        self.epoch, self.start, self.ahead = epoch, start, ahead

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration by Lightning's number."""
        self.epoch = epoch - self.ahead

    def __len__(self) -> int:
        """Batches of a whole epoch, also when the next iteration starts inside one."""
        full, rest = divmod(self.n, self.batch_size * self.world)
        return full + int(not self.drop_last and rest >= self.world)

    def __iter__(self) -> Iterator[list[Draw]]:
        """Begin an epoch; `epoch` and `start` are read now, not when the first batch is asked for."""
        return self._batches(self.epoch, self.start)

    def permutation(self, epoch: int) -> list[int]:
        """Order of the samples in an epoch."""
        # a hash, because seed + epoch would give (seed 0, epoch 1) and (seed 1, epoch 0) the same order
        mixed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        order: list[int] = torch.randperm(self.n, generator=torch.Generator().manual_seed(mixed)).tolist()
        return order

    def _batches(self, epoch: int, start: int) -> Iterator[list[Draw]]:
        self.start = 0  # not in __iter__: a DataLoader with workers calls that twice and uses the second
        order = self.permutation(epoch)
        block = self.batch_size * self.world
        for step in range(start, len(self)):
            first = step * block
            size = min(block, self.n - first)
            mine = range(first + size * self.rank // self.world, first + size * (self.rank + 1) // self.world)
            yield [(order[position], epoch * self.n + position) for position in mine]


class ExactSampler(DistributedSampler[int]):
    """Every index once over all ranks: no padding, so that metrics count no image twice.

    Args:
        n: number of samples.
        rank: this process.
        world: number of processes.
        sizes: of the samples. With them the ranks take turns from the largest down, so that the work of two ranks
            differs by one sample at most, the largest; None keeps the order.
    """

    def __init__(self, n: int, rank: int = 0, world: int = 1, sizes: Sequence[float] | None = None) -> None:
        super().__init__(range(n), num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]
        order = range(n) if sizes is None else sorted(range(n), key=lambda index: -sizes[index])
        self.mine = order[rank::world]

    def __len__(self) -> int:
        """Number of indices of this rank."""
        return len(self.mine)

    def __iter__(self) -> Iterator[int]:
        """Positions rank, rank + world, ... of the order."""
        return iter(self.mine)
