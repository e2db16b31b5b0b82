"""How cost grows: one size is varied, and a power law is fitted to the times (least squares of logarithms)."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from frugalseg.data.views import Views
from frugalseg.ops.crf import Kernels, dense_crf
from tests.benchmark import cti, dsmf, mevt, sfc, walk
from tests.benchmark.measure import Measured, interleave

Work = Callable[[], object]
CLASSES = (10, 20, 40, 80)
"""VOC has 20, COCO 80."""


class Curve(NamedTuple):
    """What is varied.

    Attributes:
        axis: name of x.
        sides: x -> work at that size.
    """

    axis: str
    sides: Mapping[int, Work]


def fit(points: Mapping[int, float]) -> tuple[float, float]:
    """Least squares of log y = a + p log x.

    Args:
        points: x -> y, both above 0.

    Returns:
        The exponent p, and R^2, the share of log y's variance that the line explains.
    """
    x, y = np.log(list(points)), np.log(list(points.values()))
    exponent, start = np.polyfit(x, y, 1)
    rest = np.square(y - start - exponent * x).sum()
    return float(exponent), float(1 - rest / max(np.square(y - y.mean()).sum(), 1e-12))


def measure(name: str, quick: bool) -> dict[str, Measured]:
    """The exponent of one curve: each point is the least CPU time of its rounds, sizes taken in turn."""
    curve = CURVES[name](quick)
    times = interleave({str(x): work for x, work in curve.sides.items()}, 1 if quick else 3)
    points = {x: min(cpu for _, cpu in times[str(x)]) for x in curve.sides}
    exponent, explained = fit(points)
    extra = {
        "axis": curve.axis,
        "points": [[x, round(seconds, 6)] for x, seconds in points.items()],
        "r_squared": round(explained, 4),
    }
    note = f"{curve.axis} {min(points)} to {max(points)}, R2 {explained:.3f}"
    return {f"growth.{name}": Measured(exponent, note, extra)}


# ---------------------------------------------------------------------- image size


def _sides(quick: bool, *sides: int) -> tuple[int, ...]:
    return (32, 64) if quick else sides


def sfc_pixels(quick: bool) -> Curve:
    few = sfc.QUICK if quick else {}
    made = {s: sfc.sfc_step(sfc.make_task(s, **few), sfc.make_batch(s)) for s in _sides(quick, 96, 128, 192, 256)}
    return Curve("pixels", {s * s: step for s, step in made.items()})


def cti_pixels(quick: bool) -> Curve:
    task = cti.make_task(quick)
    sides = _sides(quick, 112, 160, 224, 320)
    return Curve("pixels", {s * s: cti.task_step(task, cti.make_batch(s)) for s in sides})


def dsmf_pixels(quick: bool) -> Curve:
    task = dsmf.make_task(**(dsmf.QUICK if quick else {})).train()
    sides = _sides(quick, 96, 128, 192, 256)
    return Curve("pixels", {s * s: dsmf.task_step(task, dsmf.make_batch(s)) for s in sides})


def mevt_pixels(quick: bool) -> Curve:
    """Of a global view; local ones have half its side."""
    views = mevt.settings()["data"]["init_args"]["recipe"]["init_args"]["local_views"]
    sizes = {
        s: Views(global_size=s, local_size=s // 2, local_views=views) for s in (64, 128, 192, 256)[: 2 if quick else 4]
    }
    return Curve("pixels", {s * s: _mevt_step(recipe, quick) for s, recipe in sizes.items()})


def crf_pixels(quick: bool) -> Curve:
    """Ten iterations with three labels on smooth noise."""
    return Curve("pixels", {s * s: _crf(s) for s in _sides(quick, 96, 192, 288, 384)})


def _crf(side: int) -> Work:
    coarse = torch.rand(1, 3, side // 16, side // 16, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    pixels = (255 * smooth[0]).byte().permute(1, 2, 0).contiguous()
    labels = torch.arange(side * side).view(side, side) // 97 % 3
    return lambda: dense_crf(pixels, labels, Kernels(), 10, 0.7, 3)


def walk_pixels(quick: bool) -> Curve:
    """Of the grid that is walked on, a sixteenth of the image's."""
    inputs = {s: walk.Inputs(torch.rand(3, s, s), torch.rand(s, s) ** 2) for s in _sides(quick, 32, 64, 96, 128)}
    return Curve("cells", {s * s: _walk(given) for s, given in inputs.items()})


def _walk(inputs: walk.Inputs) -> Work:
    return lambda: walk.ours(inputs)


# ---------------------------------------------------------------------- classes, shots, crops


def sfc_classes(quick: bool) -> Curve:
    made, crop = {}, 32 if quick else 96
    for count in (10, 20) if quick else CLASSES:
        task = sfc.make_task(crop, counts=[100] * count, **(sfc.QUICK if quick else {}))
        made[count] = sfc.sfc_step(task, sfc.make_batch(crop, classes=count))
    return Curve("classes", made)


def cti_classes(quick: bool) -> Curve:
    side = 64 if quick else 160
    made = {}
    for count in (10, 20) if quick else CLASSES:
        task = cti.make_task(quick, classes=count)
        made[count] = cti.task_step(task, cti.make_batch(side, classes=count))
    return Curve("classes", made)


def dsmf_shots(quick: bool) -> Curve:
    """Answers to one episode, nothing kept from one to the next."""
    task = dsmf.make_task(**(dsmf.QUICK if quick else {})).eval()
    task.cache.limit = 0
    batches = {
        k: dsmf.make_batch(64 if quick else 128, episodes=1, shots=k) for k in ((1, 2) if quick else (1, 2, 5, 10))
    }

    def answer(shots: int) -> Work:
        return lambda: torch.no_grad()(task.answer)(batches[shots])

    return Curve("shots", {shots: answer(shots) for shots in batches})


def mevt_crops(quick: bool) -> Curve:
    """Local views beside two global ones."""
    counts = (2, 4) if quick else (2, 4, 8, 16)
    return Curve(
        "local views", {n: _mevt_step(Views(global_size=64, local_size=32, local_views=n), quick) for n in counts}
    )


def _mevt_step(recipe: Views, quick: bool) -> Work:
    return mevt.task_step(mevt.make_task(), mevt.make_batch(recipe, 2 if quick else 4))


CURVES: dict[str, Callable[[bool], Curve]] = {
    "sfc_pixels": sfc_pixels, "cti_pixels": cti_pixels, "dsmf_pixels": dsmf_pixels, "mevt_pixels": mevt_pixels,
    "crf_pixels": crf_pixels, "walk_pixels": walk_pixels,
    "sfc_classes": sfc_classes, "cti_classes": cti_classes, "dsmf_shots": dsmf_shots, "mevt_crops": mevt_crops,
}  # fmt: skip
"""Name of the row -> what is varied, made when it is wanted."""
