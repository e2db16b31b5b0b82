"""MEVT against DINO's ViT-S/16 under the same task: images per second with 2 x 224 + 8 x 96 views, CPU and GPU.

`mevt_s` learns by all of MEVT's terms, the transformer by DINO's alone, with the same heads and crops.
"""

from collections.abc import Callable, Sequence
from math import prod
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from frugalseg.batch import ViewsBatch
from frugalseg.data.views import Views
from frugalseg.papers.mevt.task import Pretrain
from tests.benchmark.device import free, gpu_device, half_precision, name_of, peak_bytes, wait_for
from tests.benchmark.gpu_rates import matrix_rate, side_of
from tests.benchmark.measure import Measured, device_ratio, interleave, ratio
from tests.benchmark.mevt import make_batch, task_step

Work = Callable[[], object]
Shape = Sequence[int]
Name = Literal["mevt", "dino"]
NETS: dict[str, tuple[str, Name]] = {"mevt_s": ("mevt_s", "mevt"), "dino_vit_s16": ("vit_small_patch16_224", "dino")}
"""Name in the rows -> preset and method of the task."""
QUICK: dict[str, tuple[str, Name]] = {
    "mevt_s": ("mevt_tiny", "mevt"),
    "dino_vit_s16": ("vit_tiny_patch16_224", "dino"),
}
FEW = {"global_hidden": [32], "global_prototypes": 64, "dense_prototypes": 64}
SIDE = 448
"""Of the images that views are cut out of, which are not there: boxes are."""


def make_task(name: str, quick: bool) -> Pretrain:
    torch.manual_seed(0)
    preset, method = QUICK[name] if quick else NETS[name]
    return Pretrain(preset, method, heads=FEW if quick else None).train()


def make_views(images: int, quick: bool, device: str = "cpu") -> ViewsBatch:
    """DINO's crops; small and few where it is only to run."""
    views = Views(global_size=64, local_size=32, local_views=2) if quick else Views()
    return make_batch(views, images, SIDE, device)


def images_per_second(quick: bool) -> dict[str, Measured]:
    """Of CPU time, which other processes do not stretch."""
    images = 2
    batch = make_views(images, quick)
    sides = {name: task_step(make_task(name, quick), batch) for name in NETS}
    times = interleave(sides, 1 if quick else 3)
    rows = {
        f"mevt.images_per_second_{name}": Measured(images / median(cpu for _, cpu in times[name]), f"batch {images}")
        for name in NETS
    }
    # images/s of MEVT over DINO's: seconds the other way round
    return rows | {"mevt.mevt_s_over_dino": ratio(times, "dino_vit_s16", "mevt_s")}


# ---------------------------------------------------------------------- a GPU


class Operations(NamedTuple):
    """Multiplications and additions of a step: of convolutions, and of matrix products and attention.

    In float32 PyTorch runs the first as TF32 by default, the others in true float32.
    """

    convolutions: float
    products: float

    @property
    def total(self) -> float:
        return self.convolutions + self.products


def half_step(name: str, batch: ViewsBatch, device: str, quick: bool) -> Work:
    """A step as under the Trainer's `bf16-mixed`, waited for."""
    step = task_step(make_task(name, quick).to(device), batch, context=half_precision(device))

    def run() -> None:
        step()
        wait_for(device)

    return run


def convolution_backward(slope: Shape, x: Shape, weight: Shape, *rest: Any, out_shape: object = None) -> int:
    """Operations of both gradients, each as many as the forward pass's; torch's own count is blind to groups.

    Args:
        slope: shape of the output's gradient.
        x: of the input.
        weight: (outputs, inputs of a group, kernel).
        rest: settings; the last one says which gradients are wanted, of input, weight and bias.
        out_shape: not needed.
    """
    return 2 * prod(slope) * prod(weight[1:]) * sum(rest[-1][:2])


def operations(work: Work) -> Operations:
    """Counted while `work` runs once."""
    counted = {torch.ops.aten.convolution_backward: convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        work()
    found = counter.get_flop_counts().get("Global", {})
    convolutions = sum(count for operator, count in found.items() if "convolution" in str(operator))
    return Operations(convolutions, counter.get_total_flops() - convolutions)


def peak_of(name: str, batch: ViewsBatch, device: str, quick: bool) -> int | None:
    """Bytes of the device at most, with no other net on it; None where no device tells."""
    step = half_step(name, batch, device, quick)
    step()
    peak = peak_bytes(device, step)
    del step
    free(device)
    return peak


def gpu(quick: bool) -> dict[str, Measured]:
    """bf16, 64 images a step."""
    device, images = gpu_device(), 4 if quick else 64
    batch, note = make_views(images, quick, device), f"batch {images}, {name_of(device)}"
    peaks = {name: peak_of(name, batch, device, quick) for name in NETS}
    return speeds(device, batch, note, quick) | {
        f"mevt.gpu_peak_memory_{name}": Measured(peak / 1e6, note) for name, peak in peaks.items() if peak is not None
    }


def speeds(device: str, batch: ViewsBatch, note: str, quick: bool) -> dict[str, Measured]:
    """Images per second, and what part of the device's matrix rate that is."""
    rate = matrix_rate(device, "bf16", side_of(quick))
    sides = {name: half_step(name, batch, device, quick) for name in NETS}
    counts = {name: operations(work).total for name, work in sides.items()}
    times = interleave(sides, 1 if quick else 10)
    # images/s of MEVT over DINO's: seconds the other way round
    rows = {"mevt.gpu_mevt_s_over_dino": device_ratio(times, "dino_vit_s16", "mevt_s")}
    for name in NETS:
        seconds = median(wall for wall, _ in times[name])
        extra = {"operations": counts[name], "matrix_rate": round(rate)}
        rows[f"mevt.gpu_images_per_second_{name}"] = Measured(len(batch["id"]) / seconds, note)
        rows[f"mevt.gpu_matrix_share_{name}"] = Measured(100 * counts[name] / seconds / rate, note, extra)
    return rows
