"""The first bottleneck of a step on a GPU: a kernel where the card is busy, else what keeps it waiting."""

import time
from collections import Counter

from torch.profiler import ProfilerActivity, profile

from tests.benchmark.device import wait_for
from tests.benchmark.measure import Measured
from tests.benchmark.papers import Work

BUSY = 0.8
"""Share of the time in which kernels run, from which on the card itself is the limit."""
SYNCS = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpy",
    "aten::_local_scalar_dense",
)


def bottleneck(work: Work, device: str, steps: int = 3) -> Measured:
    """Profile some steps.

    Returns:
        Share (%) of the step's time that the largest kernel takes where the card is busy; else the share in which it is
        idle, and the operator on the host's side that takes most. `extra` has the five largest of both, and how often a
        step waits for the card.
    """
    work()
    wait_for(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as seen:
        began = time.perf_counter()
        for _ in range(steps):
            work()
        asked = time.perf_counter() - began  # until all was handed over; the wait is not the step's
        wait_for(device)
        total = time.perf_counter() - began
    kernels, host, waits = Counter[str](), Counter[str](), 0
    for entry in seen.key_averages():
        own = float(getattr(entry, "self_device_time_total", 0.0)) / 1e6
        if own > 0 and str(entry.device_type).endswith("CUDA"):
            kernels[str(entry.key)] += own
        host[str(entry.key)] += entry.self_cpu_time_total / 1e6
        if str(entry.key).startswith(SYNCS):
            waits += entry.count
    return told(kernels, host, waits, total, asked, steps)


def told(kernels: Counter[str], host: Counter[str], waits: int, total: float, asked: float, steps: int) -> Measured:
    """Name the bottleneck.

    Args:
        kernels: seconds by name.
        host: the same of operators and calls on the host.
        waits: calls that wait for the card, one of which the measurement makes.
        total: seconds of all steps.
        asked: of these, until the host had handed everything over.
        steps: how many.
    """
    busy = sum(kernels.values()) / total

    def largest(found: Counter[str]) -> dict[str, float]:
        return {name[:120]: round(100 * seconds / total, 2) for name, seconds in found.most_common(5)}

    extra = {
        "busy_percent": round(100 * busy, 2), "handed_over_percent": round(100 * asked / total, 2),
        "kernels": largest(kernels), "host": largest(host), "waits_per_step": round(max(0, waits - 1) / steps, 2),
    }  # fmt: skip
    if busy >= BUSY:
        name, seconds = kernels.most_common(1)[0]
        return Measured(100 * seconds / total, f"kernel {name[:120]}", extra)
    name = host.most_common(1)[0][0] if host else "nothing seen"
    return Measured(100 * max(0.0, 1 - busy), f"the card idles; on the host most time goes to {name[:120]}", extra)
