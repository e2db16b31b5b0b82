"""MEVT against DINO's ViT-S/16 under the same task: images per second with 2 x 224 + 8 x 96 views, CPU and GPU.

`mevt_s` learns by all of MEVT's terms, the transformer by DINO's alone, with the same heads and crops.
"""

import gc
from collections.abc import Callable, Sequence
from math import prod
from statistics import median
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from frugalseg.batch import ViewsBatch
from frugalseg.data.views import Views
from frugalseg.papers.mevt.task import Pretrain
from tests.benchmark.measure import Measured, Skip, Times, interleave, ratio
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
    return rows | {"mevt.mevt_s_over_dino": _speed_ratio(times)}


def _speed_ratio(times: Times) -> Measured:
    """Images/s of MEVT over DINO's: seconds the other way round."""
    return ratio(times, "dino_vit_s16", "mevt_s")


# ---------------------------------------------------------------------- a GPU


def in_half_precision(work: Work, device: str) -> Work:
    """bf16 as the trainer's `bf16-mixed`; waits for the device."""

    def run() -> None:
        with torch.autocast(device, torch.bfloat16):
            work()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def matrix_rate(device: str, side: int) -> float:
    """Multiplications and additions per second of square bf16 matrices, the best of several runs."""
    one, two = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    out = torch.empty_like(one)
    work = in_half_precision(lambda: torch.mm(one, two, out=out), device)
    times = interleave({"product": work}, 10, {"product": 5})
    return 2 * side**3 / min(wall for wall, _ in times["product"])


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


def operations(work: Work) -> int:
    """Multiplications and additions of matrix products, convolutions and attention of a step."""
    counted = {torch.ops.aten.convolution_backward: convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        work()
    return int(counter.get_total_flops())


def peak_of(name: str, batch: ViewsBatch, quick: bool) -> int:
    """Bytes of the device at most, with no other net on it."""
    step = in_half_precision(task_step(make_task(name, quick).cuda(), batch), "cuda")
    step()
    torch.cuda.reset_peak_memory_stats()
    step()
    peak = torch.cuda.max_memory_allocated()
    del step
    gc.collect()
    torch.cuda.empty_cache()
    return peak


def gpu(quick: bool) -> dict[str, Measured]:
    """bf16, 64 images a step."""
    if not torch.cuda.is_available():
        raise Skip("no GPU")
    images = 4 if quick else 64
    batch, note = make_views(images, quick, "cuda"), f"batch {images}, {torch.cuda.get_device_name()}"
    peaks = {name: peak_of(name, batch, quick) for name in NETS}
    return speeds("cuda", batch, note, quick) | {
        f"mevt.gpu_peak_memory_{name}": Measured(peak / 1e6, note) for name, peak in peaks.items()
    }


def speeds(device: str, batch: ViewsBatch, note: str, quick: bool) -> dict[str, Measured]:
    """Images per second, and what part of the device's matrix rate that is."""
    rate = matrix_rate(device, 256 if quick else 8192)
    sides = {name: in_half_precision(task_step(make_task(name, quick).to(device), batch), device) for name in NETS}
    counts = {name: operations(work) for name, work in sides.items()}
    times = interleave(sides, 1 if quick else 10)
    rows = {"mevt.gpu_mevt_s_over_dino": _speed_ratio(times)}
    for name in NETS:
        seconds = median(wall for wall, _ in times[name])
        extra = {"operations": counts[name], "matrix_rate": round(rate)}
        rows[f"mevt.gpu_images_per_second_{name}"] = Measured(len(batch["id"]) / seconds, note)
        rows[f"mevt.gpu_matrix_share_{name}"] = Measured(100 * counts[name] / seconds / rate, note, extra)
    return rows
