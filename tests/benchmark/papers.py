"""The training steps of the four papers on batches in memory, in one form: what is measured of one is measured of all.

`python -m tests.benchmark.papers PAPER [--quick]` prints the peak memory of a step in bytes.
"""

import sys
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule
from torch import set_num_threads

from frugalseg.callbacks.layout import lay_out
from tests.benchmark import cti, dsmf, mevt, mevt_speed, sfc
from tests.benchmark.device import AS_IT_IS, Context
from tests.benchmark.measure import Measured, in_fresh_process, interleave, peak_memory

Work = Callable[[], object]


class Step(NamedTuple):
    """A training step that can be repeated.

    Attributes:
        work: forward, backward, clipping and the optimiser.
        images: that it learns from; SFC's bank, DSMF-Net's supports included, views of one image counted once.
        task: whose step it is.
    """

    work: Work
    images: int
    task: LightningModule


def sfc_step(
    quick: bool, device: str = "cpu", fresh: int = sfc.FRESH, channels_last: bool = False, context: Context = AS_IT_IS
) -> Step:
    crop = 64 if quick else 256
    task = sfc.make_task(crop, device, **(sfc.QUICK if quick else {}))
    batch = sfc.Batch(**laid_out(sfc.make_batch(crop, device, fresh)._asdict(), channels_last))
    return Step(sfc.sfc_step(task, batch, context=context), fresh + task.hparams["bank_draws"], task)


def cti_step(
    quick: bool, device: str = "cpu", size: int = cti.BATCH, channels_last: bool = False, context: Context = AS_IT_IS
) -> Step:
    task = cti.make_task(quick).to(device)
    batch = cti.Batch(**laid_out(cti.make_batch(64 if quick else 224, size, device)._asdict(), channels_last))
    return Step(cti.task_step(task, batch, context=context), size, task)


def dsmf_step(
    quick: bool,
    device: str = "cpu",
    episodes: int = dsmf.BATCH,
    channels_last: bool = False,
    context: Context = AS_IT_IS,
) -> Step:
    task = dsmf.make_task(**(dsmf.QUICK if quick else {})).train().to(device)
    batch = laid_out(dsmf.make_batch(64 if quick else 256, device, episodes), channels_last)
    return Step(dsmf.task_step(task, batch, context=context), 2 * episodes, task)


def mevt_step(quick: bool) -> Step:
    """Of the miniature, as mevt.step_over_bare."""
    images = 2 if quick else 16
    task = mevt.make_task()
    return Step(mevt.task_step(task, mevt.make_batch(mevt.recipe(), images)), images, task)


def mevt_s_step(
    quick: bool, device: str, images: int, channels_last: bool = False, context: Context = AS_IT_IS
) -> Step:
    """Of `mevt_s`, whose place a tiny one takes where quick."""
    task = mevt_speed.make_task("mevt_s", quick).to(device)
    batch = laid_out(mevt_speed.make_views(images, quick, device), channels_last)
    return Step(mevt.task_step(task, batch, context=context), images, task)


def laid_out(batch: Any, channels_last: bool) -> Any:
    """A batch as the overlay gives it to a step."""
    if channels_last:
        lay_out(batch)
    return batch


STEPS: dict[str, Callable[[bool], Step]] = {
    "sfc": sfc_step, "cti": cti_step, "dsmf": dsmf_step, "mevt": mevt_step,
}  # fmt: skip
"""On one CPU core, at the sizes of the rows `<paper>.step_over_...`."""


def speed(paper: str, quick: bool) -> dict[str, Measured]:
    """Images per CPU second, which other processes do not stretch, and memory."""
    step = STEPS[paper](quick)
    times = interleave({"step": step.work}, 1 if quick else 3)["step"]
    wall, cpu = (median(time[side] for time in times) for side in (0, 1))
    note = f"{step.images} images a step"
    peak = in_fresh_process("tests.benchmark.papers", paper, *(["--quick"] if quick else []))
    extra: dict[str, Any] = {"seconds": {"step": round(wall, 4), "step, CPU": round(cpu, 4)}, "rounds": len(times)}
    return {
        f"{paper}.step_images_per_s": Measured(step.images / cpu, note, extra),
        f"{paper}.step_peak_memory": Measured(peak / 1e6, note),
    }


def main(paper: str, quick: bool) -> None:
    set_num_threads(1)
    STEPS[paper](True).work()  # libraries loaded and set up
    print(peak_memory(STEPS[paper](quick).work))


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
