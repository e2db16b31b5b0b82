"""Means over the pixels of all ranks: with DDP's plain mean of means, a rank with few pixels would count too much."""

from collections.abc import Callable
from functools import partial

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

Average = Callable[[Tensor], Tensor]
"""A number of this rank -> its mean over ranks."""


def over_ranks(task: LightningModule) -> Average | None:
    """How a task averages over its ranks.

    Args:
        task: that trains; one without a trainer is alone.

    Returns:
        None where there is one process.
    """
    trainer = task._trainer
    if trainer is None or trainer.world_size == 1:
        return None
    return partial(_mean, trainer.world_size)


def _mean(world: int, value: Tensor) -> Tensor:
    total = value.detach().double().clone()
    # not by Lightning's strategy, which lets all ranks meet first: with NCCL the host would wait for the device
    torch.distributed.all_reduce(total)
    return total / world


def divided(total: Tensor, count: Tensor, average: Average | None = None) -> Tensor:
    """A sum over this rank's pixels divided by how many count, so that the mean over ranks is that over all pixels.

    With several ranks it is no mean of this rank: its own pixels are divided by what the ranks count on average.

    Args:
        total: scalar.
        count: scalar, the number (or the weight) of the pixels in it.
        average: see `over_ranks`.

    Returns:
        A scalar; 0 where nothing counts.
    """
    shared = count if average is None else average(count)
    return total / torch.where(shared > 0, shared, 1).to(total.dtype)
