"""The first bottleneck of a step: what the profiler tells, made up, and what is made of it."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from tests.benchmark import gpu_bottleneck, shares
from tests.benchmark.measure import Skip

CPU, CARD = torch.autograd.DeviceType.CPU, torch.autograd.DeviceType.CUDA


def event(name, start, end, device=CPU, note=False, own=None):
    """An entry as the profiler gives it, in microseconds."""
    span = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
    own = end - start if own is None else own
    return SimpleNamespace(
        name=name, time_range=span, device_type=device, is_user_annotation=note, self_cpu_time_total=own
    )


EVENTS = [
    event(gpu_bottleneck.REGION, 0, 1000, note=True, own=100), event("Optimizer.step#SGD.step", 800, 900, note=True, own=20),
    event("aten::_local_scalar_dense", 100, 200, own=10), event("cudaMemcpyAsync", 110, 120),
    event("cudaStreamSynchronize", 120, 200), event("aten::mm", 300, 600),
    # the measurement's own waiting: ours, and what profile.__exit__ does
    event("cudaDeviceSynchronize", 1010, 1100), event("cudaDeviceSynchronize", 1110, 1120),
    event(gpu_bottleneck.REGION, 50, 1090, CARD, note=True), event("Optimizer.step#SGD.step", 850, 950, CARD, note=True),
    event("gemm", 150, 750, CARD), event("Memcpy DtoH (Device -> Pageable)", 800, 900, CARD), event("gemm", 1010, 1090, CARD),
]  # fmt: skip


def test_the_profiler_s_events_are_put_together():
    """Annotations are no kernels; an `.item()` waits once, its copy does not; the measurement's waits do not count."""
    seen = gpu_bottleneck.sort_out(EVENTS, steps=2)
    assert seen.kernels == pytest.approx({"gemm": 340e-6, "Memcpy DtoH (Device -> Pageable)": 50e-6})
    assert seen.waits == 0.5
    assert seen.host["aten::mm"] == pytest.approx(150e-6) and seen.host[shares.OUTSIDE] == pytest.approx(60e-6)
    assert "cudaDeviceSynchronize" not in seen.host


def test_the_bottleneck_is_a_kernel_of_a_busy_card_else_the_host():
    """Against the step's time without the profiler, which its host's side outlasts here."""
    seen = gpu_bottleneck.Seen(Counter({"gemm": 6.0, "copy": 3.0}), Counter({"aten::item": 15.0, "aten::mm": 5.0}), 2.0)
    busy = gpu_bottleneck.told(seen, "cuda", 10.0)
    assert busy.value == pytest.approx(60) and busy.note == "kernel gemm" and busy.extra["waits_per_step"] == 2
    assert busy.extra["host, profiled"] == {"aten::item": 75.0, "aten::mm": 25.0}
    idle = gpu_bottleneck.told(seen, "cuda", 20.0)
    assert idle.value == pytest.approx(55) and "aten::item" in idle.note and "idles" in idle.note


def test_without_kernels_nothing_is_said_of_a_card():
    seen = gpu_bottleneck.Seen(Counter(), Counter({"aten::mm": 1.0}), 0.0)
    reason = gpu_bottleneck.told(seen, "cuda", 10.0)
    assert isinstance(reason, Skip) and "CUPTI" in str(reason)
    assert "idles" not in gpu_bottleneck.told(seen, "cpu", 10.0).note


def test_a_step_is_profiled_within_the_region():
    """The genuine profiler: operators of the steps alone, annotations apart."""
    weight = torch.nn.Parameter(torch.randn(50, 50))
    weight.grad = torch.randn_like(weight)
    optimiser = torch.optim.SGD([weight], lr=0.1)
    found = gpu_bottleneck.bottleneck(optimiser.step, "cpu", 1.0)
    names = found.extra["host, profiled"]
    assert shares.OUTSIDE in names and not any("Optimizer" in name or name == gpu_bottleneck.REGION for name in names)
