"""The papers' training steps on a GPU: fp32, bf16, and bf16 compiled with channels last, side by side in one run.

Of each: images per second, peak memory, and the share of the matrix rate that was measured in the same process. What is
compiled is a part of its own, so that a compiler that takes too long costs no other row.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import Trainer

from frugalseg.callbacks import ChannelsLast, Compile
from tests.benchmark.device import AS_IT_IS, free, gpu_device, half_precision, name_of, peak_bytes, seconds_of
from tests.benchmark.gpu_bottleneck import bottleneck
from tests.benchmark.gpu_rates import matrix_rate, side_of
from tests.benchmark.measure import Measured, Rows, Skip
from tests.benchmark.mevt_speed import Operations, operations
from tests.benchmark.papers import Step, cti_step, dsmf_step, mevt_s_step, sfc_step


class Mode(NamedTuple):
    """How a step is run, and the matrix rates that its convolutions and its other products are held against."""

    bf16: bool
    convolutions: str
    products: str
    compiled: bool = False


MODES = {
    "fp32": Mode(False, "tf32", "fp32"),
    "bf16": Mode(True, "bf16", "bf16"),
    "compiled": Mode(True, "bf16", "bf16", True),
}
"""fp32 as the Trainer's `32-true`: by PyTorch's default convolutions take TF32, matrix products true float32."""
STEPS: dict[str, Callable[..., Step]] = {"sfc": sfc_step, "cti": cti_step, "dsmf": dsmf_step, "mevt": mevt_s_step}
SIZES = {"sfc": 16, "cti": 64, "dsmf": 8, "mevt": 64}
"""The published batches; SFC's crop is half the published one, for the time's sake."""
FEW = 2


def size_of(paper: str, quick: bool) -> int:
    """Images or episodes of a batch."""
    return FEW if quick else SIZES[paper]


def prepare(paper: str, mode: Mode, device: str, quick: bool, size: int | None = None) -> Step:
    """A step in a mode, not yet run; `size` in place of the published batch."""
    context = half_precision(device) if mode.bf16 else AS_IT_IS
    step = STEPS[paper](quick, device, size or size_of(paper, quick), mode.compiled, context)
    if mode.compiled:
        # the overlays' own callbacks, which ask nothing of a trainer here; a CPU in the GPU's place only follows the code
        backend = "inductor" if device == "cuda" else "eager"
        for callback in (ChannelsLast(), Compile(backend)):
            callback.setup(cast(Trainer, None), step.task, "fit")
    return step


@cache
def operations_of(paper: str, device: str, quick: bool) -> Operations:
    """Of a step at full size: counted on an eighth and a quarter of the batch, and continued on a straight line.

    All of a batch may not fit in float32, and what a step does once for all images is not multiplied.
    """
    size = size_of(paper, quick)
    few = max(FEW, size // 8)
    sizes = few, min(2 * few, size)
    counts = {n: operations(prepare(paper, MODES["bf16"], device, quick, n).work) for n in sizes}
    return continued(*(counts[n] for n in sizes), size / few)


def continued(few: Operations, twice: Operations, times: float) -> Operations:
    """The straight line through counts at a size and at twice that size, at so many times the first size."""
    return Operations(*(a + (b - a) * (times - 1) for a, b in zip(few, twice, strict=True)))


def eager(paper: str, quick: bool) -> Iterator[Rows]:
    """Rows as they come: fp32, bf16, and the bottleneck of the latter."""
    bench = Bench(paper, gpu_device(), quick)
    yield bench.rows("fp32")
    yield bench.rows("bf16")
    yield bench.bottleneck("bf16")


def compiled(paper: str, quick: bool) -> Iterator[Rows]:
    """fp32 once more, for the ratio's sake, then compiled."""
    bench = Bench(paper, gpu_device(), quick)
    bench.rows("fp32")
    yield bench.rows("compiled")


class Bench:
    """A paper's step in one mode after the other on one device; a mode that does not fit costs its own rows alone."""

    def __init__(self, paper: str, device: str, quick: bool) -> None:
        self.paper, self.device, self.quick = paper, device, quick
        self.seconds: dict[str, float] = {}

    def rows(self, name: str) -> Rows:
        """All rows of a mode, by `MODES`' name."""
        kinds = ("images_per_s", "utilisation", "peak_memory", *(["over_fp32"] if name != "fp32" else []))
        return self._or_reason(lambda: self._measured(name), [f"{self.paper}.gpu_{name}_{kind}" for kind in kinds])

    def bottleneck(self, name: str) -> Rows:
        """Of a mode that was measured before."""
        row = f"{self.paper}.gpu_bottleneck"
        if name not in self.seconds:
            return {row: Skip(f"{name} was not measured")}

        def measure() -> Rows:
            step = prepare(self.paper, MODES[name], self.device, self.quick)
            return {row: bottleneck(step.work, self.device, self.seconds[name])}

        return self._or_reason(measure, [row])

    def _or_reason(self, measure: Callable[[], Rows], ids: list[str]) -> Rows:
        free(self.device)
        try:
            return measure()
        except torch.OutOfMemoryError as full:
            reason = f"out of memory: {str(full).partition('. ')[0]}"
        return {row: Skip(reason) for row in ids}

    def _measured(self, name: str) -> Rows:
        mode, step = MODES[name], prepare(self.paper, MODES[name], self.device, self.quick)
        for _ in range(1 if self.quick else 3):
            step.work()  # compiles, and lets cuDNN choose
        peak = peak_bytes(self.device, step.work)
        self.seconds[name] = seconds = seconds_of(self.device, step.work, 0.0 if self.quick else 3.0)
        images = step.images
        del step  # what counts operations needs room of its own
        free(self.device)
        note = f"{images} images a step, {name_of(self.device)}"
        used, extra = self._utilisation(mode, seconds)
        begin = f"{self.paper}.gpu_{name}"
        rows: Rows = {
            f"{begin}_images_per_s": Measured(images / seconds, note, {"seconds": {"step": round(seconds, 5)}}),
            f"{begin}_utilisation": Measured(used, note, extra),
        }
        if peak is not None:
            rows[f"{begin}_peak_memory"] = Measured(peak / 1e6, note)
        if name != "fp32":
            slow = self.seconds.get("fp32")
            rows[f"{begin}_over_fp32"] = Measured(slow / seconds, note) if slow else Skip("fp32 was not measured")
        if mode.compiled:
            torch.compiler.reset()
        return rows

    def _utilisation(self, mode: Mode, seconds: float) -> tuple[float, dict[str, Any]]:
        """Percent: the time that the step's operations would take at the card's rates, of the time that it takes."""
        count = operations_of(self.paper, self.device, self.quick)
        names = (mode.convolutions, mode.products)
        rates = [matrix_rate(self.device, rate, side_of(self.quick)) for rate in names]
        least = count.convolutions / rates[0] + count.products / rates[1]
        extra = {
            "operations": {"convolutions": round(count.convolutions), "products": round(count.products)},
            "matrix_rates": {name: round(rate) for name, rate in zip(names, rates, strict=True)},
        }
        return 100 * least / seconds, extra
