"""The papers' training steps on a GPU: fp32, bf16, and bf16 compiled with channels last, side by side in one run.

Of each: images per second, peak memory, and the share of the matrix rate that was measured in the same process.
"""

import gc
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule, Trainer

from frugalseg.callbacks import ChannelsLast, Compile
from tests.benchmark.device import gpu_device, name_of, peak_bytes, seconds_of
from tests.benchmark.gpu_bottleneck import bottleneck
from tests.benchmark.gpu_rates import matrix_rate, side_of
from tests.benchmark.measure import Measured
from tests.benchmark.mevt_speed import operations
from tests.benchmark.papers import Step, Work, cti_step, dsmf_step, mevt_s_step, sfc_step

Rows = dict[str, Measured]


class Mode(NamedTuple):
    """How a step is run; `rate` is the matrix rate that it is held against."""

    bf16: bool
    rate: str
    compiled: bool = False


MODES = {"fp32": Mode(False, "tf32"), "bf16": Mode(True, "bf16"), "compiled": Mode(True, "bf16", True)}
"""Float32 as the Trainer's `32-true`: convolutions by TF32, PyTorch's default."""


def make(paper: str, device: str, quick: bool, channels_last: bool = False) -> Step:
    """The step at the published batch and crop; SFC's crop is half the published one, for the time's sake."""
    few = 2
    if paper == "sfc":
        return sfc_step(quick, device, few if quick else 16, channels_last)
    if paper == "cti":
        return cti_step(quick, device, few if quick else 64, channels_last)
    if paper == "dsmf":
        return dsmf_step(quick, device, few if quick else 8, channels_last)
    return mevt_s_step(quick, device, few if quick else 64, channels_last)


def prepare(paper: str, mode: Mode, device: str, quick: bool) -> Step:
    """A step in a mode, not yet run."""
    step = make(paper, device, quick, mode.compiled)
    if mode.compiled:
        # the overlays' own callbacks, which ask nothing of a trainer here; a CPU in the GPU's place only follows the code
        backend = "inductor" if device == "cuda" else "eager"
        callbacks = (ChannelsLast(), Compile(backend))
        for callback in callbacks:
            callback.setup(cast(Trainer, None), step.task, "fit")
    return step._replace(work=in_precision(step.work, device, mode.bf16))


def in_precision(work: Work, device: str, bf16: bool) -> Work:
    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            work()

    return run


def measured(paper: str, quick: bool) -> Iterator[Rows]:
    """Rows as they come, so that what comes last may take too long: fp32 and bf16, the bottleneck, compiled."""
    device = gpu_device()
    least = 0.0 if quick else 3.0
    speeds: dict[str, float] = {}
    counted = operations(make(paper, device, quick).work)
    for name in ("fp32", "bf16"):
        yield rows_of(paper, name, device, quick, least, counted, speeds)
    step = prepare(paper, MODES["bf16"], device, quick)
    yield {f"{paper}.gpu_bottleneck": bottleneck(step.work, device)}
    del step
    yield rows_of(paper, "compiled", device, quick, least, counted, speeds)


def rows_of(
    paper: str, name: str, device: str, quick: bool, least: float, counted: int, speeds: dict[str, float]
) -> Rows:
    """One mode alone on the device; its speed goes into `speeds` too."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    mode = MODES[name]
    step = prepare(paper, mode, device, quick)
    for _ in range(1 if quick else 3):
        step.work()  # compiles, and lets cuDNN choose
    peak = peak_bytes(device, step.work)
    seconds = seconds_of(device, step.work, least)
    rate = matrix_rate(device, mode.rate, side_of(quick))
    speeds[name] = step.images / seconds
    note = f"{step.images} images a step, {name_of(device)}"
    extra: dict[str, Any] = {"seconds": {"step": round(seconds, 5)}, "operations": counted, "matrix_rate": round(rate)}
    rows = {
        f"{paper}.gpu_{name}_images_per_s": Measured(speeds[name], note, extra),
        f"{paper}.gpu_{name}_utilisation": Measured(100 * counted / seconds / rate, note, extra),
    }
    if peak is not None:
        rows[f"{paper}.gpu_{name}_peak_memory"] = Measured(peak / 1e6, note)
    if name != "fp32":
        rows[f"{paper}.gpu_{name}_over_fp32"] = Measured(speeds[name] / speeds["fp32"], note)
    _forget(step.task, mode)
    return rows


def _forget(task: LightningModule, mode: Mode) -> None:
    if mode.compiled:
        torch.compiler.reset()
    task.zero_grad(set_to_none=True)
