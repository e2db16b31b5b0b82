"""How much memory a pass through a net takes, and how much there is.

The figures decide only whether an image goes through whole or in tiles; results do not depend on them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PROBE_SIDE = 128
"""Side of the image that is measured: large enough for the cost per pixel, small enough for any machine."""
SPARE = 0.8
"""Share of the free memory that a pass may plan with."""
SCRATCH = 1.6
"""Factor on live tensors for what oneDNN needs beside them; resident memory of six nets was 1.3 to 1.6 times theirs."""
PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follow the bytes of all tensors that come into being, and keep the largest sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.live[StorageWeakRef(storage)] = storage.nbytes()  # type: ignore[no-untyped-call]
        gone = [reference for reference in self.live if reference.expired()]  # type: ignore[no-untyped-call]
        for reference in gone:
            del self.live[reference]
        self.peak = max(self.peak, sum(self.live.values()))
        return result


@torch.no_grad()
def bytes_per_pixel(net: nn.Module, images: int, device: torch.device) -> float:
    """Peak memory of a pass without gradients, per pixel of one image, measured on a small picture.

    It grows with the number of pixels for convolutions; a transformer whose attention is not computed in slices takes
    more than this.

    Args:
        net: (N, 3, H, W) -> logits; its mode is left as it is.
        images: N, how many go through at a time.
        device: where the net is.

    Returns:
        Bytes. On CUDA what torch's allocator gave out; elsewhere live tensors times `SCRATCH`.
    """
    training = net.training
    net.eval()
    try:
        probe = torch.zeros(images, 3, PROBE_SIDE, PROBE_SIDE, device=device)
        if device.type == "cuda":
            net(probe)  # the first pass also loads kernels
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            net(probe)
            peak = float(torch.cuda.max_memory_allocated(device) - before)
        else:
            with _LiveBytes() as meter:
                net(probe)
            peak = meter.peak * SCRATCH
    finally:
        net.train(training)
    return max(peak, 1.0) / PROBE_SIDE**2


def free_bytes(device: torch.device, resident: int = 0) -> float:
    """Memory that can still be had on a device.

    Args:
        device: CUDA and CPU are known, others count as unlimited.
        resident: bytes that this process held before its first pass. What it holds beyond is the allocator's to reuse:
            glibc keeps freed memory where it is told so, and it would look taken.

    Returns:
        Bytes; infinite where nothing is known.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type != "cpu":
        return float("inf")
    room = min([*_system_free(), *_cgroup_free()], default=float("inf"))
    return room + max(0, resident_bytes() - resident if resident else 0)


def resident_bytes() -> int:
    """Memory of this process that lies in RAM; 0 where the system does not say."""
    try:
        pages = int((PROC / "self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _system_free() -> Iterator[float]:
    """What the kernel thinks can be had without swapping."""
    try:
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield float(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return


def _cgroup_free() -> Iterator[float]:
    """What is left below each limit of a container or a batch system, versions 2 and 1 of control groups."""
    try:
        own = [line.split(":", 2) for line in (PROC / "self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in (entry for entry in own if len(entry) == 3):
        if controllers and "memory" not in controllers.split(","):
            continue
        top = CGROUP / "memory" if controllers else CGROUP
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        place = top / path.lstrip("/")
        for folder in (place, *place.parents):
            if folder == top.parent:
                break
            yield from _below_limit(folder, *names)


def _below_limit(folder: Path, limit: str, usage: str) -> Iterator[float]:
    """Limit less usage of one control group; file cache that can be dropped does not count as used."""
    try:
        most, used = (folder / limit).read_text().strip(), float((folder / usage).read_text())
        if most == "max":
            return
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield max(0.0, float(most) - used + float(counts.get("inactive_file", 0)))
    except (OSError, ValueError):
        return
