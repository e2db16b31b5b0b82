"""Ranks that are threads of one process: enough to test what sums over ranks."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch


def on_ranks(count: int, work: Callable, inputs: list) -> list:
    """Run work(input, reduce) on so many threads at once; a rank that leaves out a sum breaks all."""
    barrier, slots = Barrier(count, timeout=20), [None] * count

    def rank(number):
        def reduce(tensor):
            slots[number] = tensor.clone()
            barrier.wait()
            total = torch.stack(slots).sum(dim=0)
            barrier.wait()
            return total

        try:
            return work(inputs[number], reduce)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(rank, range(count)))
