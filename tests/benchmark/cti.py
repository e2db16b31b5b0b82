"""CTI: the training step over four plain passes and over the naive step, seeds over two plain passes, and a GPU's rows.

Random weights, a full class memory, stochastic depth as published: every term and every pass of the step is there.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from frugalseg.optim import fused
from frugalseg.papers.cti import CTI
from tests.benchmark.device import AS_IT_IS, Context, gpu_device, half_precision, name_of, peak_bytes, wait_for
from tests.benchmark.measure import (
    Measured,
    device_ratio,
    in_fresh_process,
    interleave,
    last_line_of,
    peak_memory,
    ratio,
)  # fmt: skip
from tests.papers.cti.naive import NaiveCTI, NaiveMemory, train_step

CLASSES, BATCH = 20, 2
SMALL = {"dim": 48, "depth": 5, "heads": 3}
Work = Callable[[], object]


class Batch(NamedTuple):
    """A fixed batch in memory."""

    view1: Tensor
    view2: Tensor
    tags: Tensor


def make_task(quick: bool, classes: int = CLASSES, **settings: float) -> CTI:
    torch.manual_seed(0)
    task = CTI(classes + 1, weights=None, **(SMALL if quick else {}), **settings).train()
    task.memory.values.normal_()
    task.memory.count.fill_(task.memory.size)
    return task


def make_batch(crop: int, size: int = BATCH, device: str = "cpu", classes: int = CLASSES) -> Batch:
    random = torch.Generator().manual_seed(1)
    views = torch.randn(2, size, 3, crop, crop, generator=random).to(device)
    tags = torch.zeros(size, classes, device=device)
    tags[::2, [3, min(14, classes - 1)]] = tags[1::2, [7]] = 1
    return Batch(views[0], views[1], tags)


def make_optimiser(net: torch.nn.Module) -> torch.optim.Optimizer:
    # a rate near zero: random weights must not run away, and a step costs the same at any rate
    return fused(torch.optim.AdamW(net.parameters(), lr=1e-9, weight_decay=0.05))


def task_step(task: CTI, batch: Batch, context: Context = AS_IT_IS) -> Work:
    """The full training step of the task, without Lightning; `context` is around forward pass and losses."""
    optimiser = make_optimiser(task.net)

    def run() -> None:
        with context:
            total = task.losses(*batch).total
        total.backward()
        clip_grad_norm_(task.net.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()

    return run


def four_passes(task: CTI, tokens: Tensor, size: int = BATCH) -> Work:
    """Four passes through the task's own blocks, forward and backward: fused attention, no maps, no losses."""
    x = torch.randn(size, tokens.shape[1], tokens.shape[2], device=tokens.device)

    def run() -> None:
        for _ in range(4):
            task.net.run(x, 0, task.net.depth).mean().backward()
        task.zero_grad()

    return run


def naive_step(batch: Batch, quick: bool) -> Work:
    """Four complete passes with every attention matrix kept."""
    torch.manual_seed(0)
    small = {"dim": SMALL["dim"], "heads": SMALL["heads"], "depth": SMALL["depth"]}
    net = NaiveCTI(CLASSES + 1, **(small if quick else {"dim": 384, "heads": 6}), drop_path=0.1)
    memory, optimiser = NaiveMemory(CLASSES), make_optimiser(net)
    memory.lists = [[torch.randn(net.cls_token.shape[-1]) for _ in range(30)] for _ in range(CLASSES)]

    def run() -> None:
        train_step(net, memory, *batch)["total"].backward()
        clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()

    return run


def step_over_four(quick: bool) -> dict[str, Measured]:
    crop = 64 if quick else 224
    task, batch = make_task(quick), make_batch(crop)
    tokens = task.net.start(batch.view1)[0].detach()
    sides = {"step": task_step(task, batch), "four": four_passes(task, tokens), "naive": naive_step(batch, quick)}
    times = interleave(sides, 1 if quick else 5)
    note = f"{tokens.shape[1]} tokens"
    over_four = ratio(times, "step", "four")
    return {
        "cti.step_over_four": Measured(over_four.value, note, over_four.extra),
        "cti.step_over_naive": ratio(times, "step", "naive"),
    }


def step448_over_naive(quick: bool) -> dict[str, Measured]:
    """As a plain process allocates, and with freed memory kept, which `make` sets for all rows.

    Small steps take half the time with the memory kept. Here it helps the naive step alone, whose matrices are so large
    that glibc hands them back to the kernel each time.
    """
    words = ["--quick"] if quick else []
    plain = last_line_of("tests.benchmark.cti", "times", *words, plain_allocation=True)
    return {
        "cti.step448_over_naive": Measured(**json.loads(plain)),
        "cti.step448_over_naive_kept": _step448(quick),
    }


def _step448(quick: bool) -> Measured:
    batch = make_batch(96 if quick else 448)
    times = interleave(
        {"step": task_step(make_task(quick), batch), "naive": naive_step(batch, quick)}, 1 if quick else 3
    )
    return ratio(times, "step", "naive")


def step448_memory(quick: bool) -> dict[str, Measured]:
    words = ["--quick"] if quick else []
    ours, naive = (in_fresh_process("tests.benchmark.cti", side, *words) for side in ("step", "naive"))
    return {
        "cti.step448_memory": Measured(ours / 1e6),
        "cti.step448_naive_memory": Measured(naive / 1e6),
    }


def seed_over_two(quick: bool) -> dict[str, Measured]:
    """Seeds of one image with its mirror image, at image size, three classes."""
    size = (64, 80) if quick else (375, 500)
    task = make_task(quick).eval()
    pair = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    tags = torch.zeros(CLASSES)
    tags[[1, 7, 14]] = 1
    task.net.fold()

    @torch.inference_mode()
    def seeds() -> object:
        return task.seeds([pair], tags, size)

    @torch.inference_mode()
    def two() -> None:
        for image in (pair[:1], pair[1:]):
            x, _ = task.net.start(image)
            task.net.run(x, 0, task.net.depth)

    times = interleave({"seeds": seeds, "two": two}, 1 if quick else 7)
    return {"cti.seed_over_two": ratio(times, "seeds", "two")}


def gpu(quick: bool) -> dict[str, Measured]:
    """bf16, 64 images of 224 x 224."""
    device, size = gpu_device(), 2 if quick else 64
    half = half_precision(device)
    task, batch = make_task(quick).to(device), make_batch(64 if quick else 224, size, device)
    tokens = task.net.start(batch.view1)[0].detach()
    # what the step asks of the blocks: both views up to the infusion, four passes behind it
    widths = [2] * (task.net.infusion + 1) + [4] * (task.net.depth - task.net.infusion - 1)
    x = [tokens.repeat(width, 1, 1).requires_grad_() for width in (2, 4)]

    def blocks_alone() -> None:
        for block, width in zip(task.net.blocks, widths, strict=True):
            with half:
                total = block(x[width // 4]).mean()
            total.backward()
        task.zero_grad()

    def timed(work: Work) -> Work:
        def run() -> None:
            work()
            wait_for(device)

        return run

    sides = {"step": timed(task_step(task, batch, half)), "blocks": timed(blocks_alone)}
    times = interleave(sides, 1 if quick else 20)
    share, note = device_ratio(times, "blocks", "step"), name_of(device)
    peak = peak_bytes(device, sides["step"])
    return {
        "cti.gpu_images_per_s": Measured(size / min(wall for wall, _ in times["step"]), note),
        "cti.gpu_block_share": Measured(100 * share.value, note, share.extra),
        **({} if peak is None else {"cti.gpu_peak_memory": Measured(peak / 1e6, note)}),
    }


def main(side: str, quick: bool) -> None:
    torch.set_num_threads(1)
    if side == "times":
        print(json.dumps(asdict(_step448(quick))))
        return
    crop = 96 if quick else 448
    work = naive_step(make_batch(crop), quick) if side == "naive" else task_step(make_task(quick), make_batch(crop))
    small = naive_step(make_batch(64), True) if side == "naive" else task_step(make_task(True), make_batch(64))
    small()  # libraries loaded and set up
    print(peak_memory(work))


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
