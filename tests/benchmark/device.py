"""The device of the GPU rows: a GPU, or, to test that they run at all, the CPU in its place."""

import gc
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from tests.benchmark.measure import Skip

VARIABLE = "FRUGALSEG_GPU_ROWS"
"""Set to `cpu`, it puts the CPU in the GPU's place."""
Context = AbstractContextManager[object]
AS_IT_IS: Context = nullcontext()
"""Float32: a step's forward pass and losses run as they are written."""


def half_precision(device: str) -> Context:
    """What the Trainer's `bf16-mixed` puts around `training_step`, forward pass and losses: the rest is outside."""
    return torch.autocast(device, torch.bfloat16, cache_enabled=False)


def gpu_device() -> str:
    """`cuda`, or what the variable says.

    Raises:
        Skip: there is no GPU.
    """
    device = os.environ.get(VARIABLE, "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise Skip("no GPU")
    return device


def name_of(device: str) -> str:
    return str(torch.cuda.get_device_name()) if device == "cuda" else "a CPU in place of a GPU"


def wait_for(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def free(device: str) -> None:
    """Hand back what nothing refers to any more."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def peak_bytes(device: str, work: Callable[[], object]) -> int | None:
    """Memory of the device that tensors take at most while `work` runs; None where no device tells."""
    if device != "cuda":
        work()
        return None
    wait_for(device)
    torch.cuda.reset_peak_memory_stats()
    work()
    wait_for(device)
    return int(torch.cuda.max_memory_allocated())


def seconds_of(device: str, work: Callable[[], object], least: float) -> float:
    """Seconds of one run: runs follow each other until `least` seconds have passed, the device is waited for once."""
    work()
    wait_for(device)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < least or not count:
        # in pairs, so that a device is kept busy across calls as it is in training
        work()
        work()
        count += 2
        wait_for(device)
    return (time.perf_counter() - began) / count
