"""Two processes over one: images per second of SFC's training step under DDP on gloo, one thread each.

`python -m torch.distributed.run --nproc_per_node 2 -m tests.benchmark.ranks [--quick]` prints a measurement as JSON.
Both sides take turns within one pair of processes: while the first works alone, the second waits.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from frugalseg.papers.sfc.task import SFC
from tests.benchmark import sfc
from tests.benchmark.measure import Measured, Skip, interleave, last_line_of, ratio

Work = Callable[[], object]
RANKS = 2


class Total(nn.Module):
    """The losses of a task as a forward pass, which DDP hooks into."""

    def __init__(self, task: SFC) -> None:
        super().__init__()
        self.task = task

    def forward(self, image: Tensor, tags: Tensor, box: Tensor) -> Tensor:
        return self.task.losses(image, tags, box).total


def step_of(model: nn.Module, task: SFC, batch: sfc.Batch) -> Work:
    """A full step. The bank is drawn from by each rank for itself: the gradients alone are exchanged."""
    optimiser = sfc.make_optimiser(task)

    def run() -> None:
        model(*task.extend_from_bank(*batch, 0)).backward()
        sfc.optimise(task, optimiser)
        optimiser.zero_grad()

    return run


def two_over_one(quick: bool) -> dict[str, Measured]:
    """Skips where two processes would share a core."""
    if len(os.sched_getaffinity(0)) < RANKS:
        raise Skip(f"fewer than {RANKS} cores")
    words = [
        "--standalone",
        "--nproc_per_node",
        str(RANKS),
        "-m",
        "tests.benchmark.ranks",
        *(["--quick"] if quick else []),
    ]
    return {"ddp.two_over_one": Measured(**json.loads(last_line_of("torch.distributed.run", *words)))}


def main(quick: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    crop = 64 if quick else 256
    batch = sfc.make_batch(crop)
    alone, shared = (sfc.make_task(crop, **(sfc.QUICK if quick else {})) for _ in range(2))
    model = Total(shared)
    # the command line leaves the bank out too: all ranks keep the same one
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        model, [f"task.{name}" for name in shared._ddp_params_and_buffers_to_ignore]
    )
    one, two = step_of(Total(alone), alone, batch), step_of(DistributedDataParallel(model), shared, batch)

    def by_first() -> None:
        if dist.get_rank() == 0:
            one()
        dist.barrier()

    times = interleave({"one": by_first, "two": two}, 1 if quick else 5)
    if dist.get_rank() == 0:
        # two processes see twice the images in a step
        half = {"one": times["one"], "two": [(wall / RANKS, cpu / RANKS) for wall, cpu in times["two"]]}
        print(json.dumps(asdict(ratio(half, "one", "two"))), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main("--quick" in sys.argv)
