"""The first bottleneck of a step on a GPU: a kernel where the card is busy, else what keeps it waiting."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from tests.benchmark.device import wait_for
from tests.benchmark.measure import Measured, Skip
from tests.benchmark.papers import Work
from tests.benchmark.shares import OUTSIDE

BUSY = 0.8
"""Share of the time in which kernels run, from which on the card itself is the limit."""
WAITS = frozenset(("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"))
"""Calls in which the host waits; `cudaMemcpyAsync` does not, and an `.item()` shows as the first of these."""
REGION = "benchmark.steps"
"""What is outside of it, waiting at the end above all, belongs to the measurement."""
NO_KERNELS = (
    "the profiler saw no kernel, so nothing can be said of the card: is CUPTI permitted here"
    " (NVreg_RestrictProfilingToAdminUsers)?"
)


class Seen(NamedTuple):
    """What the profiler saw of one step: seconds by name on the card and on the host, and how often the host waits."""

    kernels: Counter[str]
    host: Counter[str]
    waits: float


def bottleneck(work: Work, device: str, seconds: float, steps: int = 3) -> Measured | Skip:
    """Profile some steps.

    Args:
        work: a step.
        device: that it runs on.
        seconds: that it takes without the profiler, which slows the host down and would make any card idle.
        steps: how many.

    Returns:
        Share (%) of the step's time that the largest kernel takes where the card is busy; else the share in which it is
        idle, and what takes most time on the host's side. `extra` has the five largest of both, and how often a step
        waits for the card. A reason where the profiler is not told of kernels.
    """
    work()
    wait_for(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as seen:
        with record_function(REGION):
            for _ in range(steps):
                work()
        wait_for(device)
    return told(sort_out(seen.events() or [], steps), device, seconds)


def sort_out(events: Iterable[Any], steps: int) -> Seen:
    """Put the profiler's events together by name.

    Annotations, such as the optimisers' own, show on the card too, as long as all kernels within them: they are none.
    """
    found = list(events)
    region = next(e.time_range for e in found if e.name == REGION and e.device_type == DeviceType.CPU)
    kernels, host, waits = Counter[str](), Counter[str](), 0
    for event in found:
        time, name = event.time_range, str(event.name)
        if event.device_type != DeviceType.CPU:
            if not event.is_user_annotation:
                kernels[name] += time.elapsed_us() / 1e6 / steps
        elif region.start <= time.start and time.end <= region.end:
            host[OUTSIDE if event.is_user_annotation else name] += event.self_cpu_time_total / 1e6 / steps
            waits += name in WAITS
    return Seen(kernels, host, waits / steps)


def told(seen: Seen, device: str, seconds: float) -> Measured | Skip:
    """Name the bottleneck of a step that takes `seconds` without the profiler."""
    if device == "cuda" and not seen.kernels:
        return Skip(NO_KERNELS)
    busy, profiled = sum(seen.kernels.values()) / seconds, sum(seen.host.values())

    def largest(found: Counter[str], total: float) -> dict[str, float]:
        return {name[:120]: round(100 * own / total, 2) for name, own in found.most_common(5)}

    extra = {
        "busy_percent": round(100 * busy, 2), "waits_per_step": round(seen.waits, 2),
        "kernels": largest(seen.kernels, seconds), "host, profiled": largest(seen.host, profiled),
        "seconds": {"step": round(seconds, 5), "host, profiled": round(profiled, 5)},
    }  # fmt: skip
    if busy >= BUSY:
        name, own = seen.kernels.most_common(1)[0]
        return Measured(100 * own / seconds, f"kernel {name[:120]}", extra)
    name = seen.host.most_common(1)[0][0] if seen.host else "nothing seen"
    idle = "the card idles" if device == "cuda" else "a CPU in place of a GPU"
    return Measured(100 * (1 - busy), f"{idle}; on the host most time goes to {name[:120]}", extra)
