"""IRN's random walk against squaring the dense matrix, and the memory that it needs.

`python -m tests.benchmark.walk [--quick]` prints the peak memory of our walk in bytes.
"""

import sys
import time
from typing import NamedTuple

import torch
from torch import Tensor

from frugalseg.ops.random_walk import affinity_from_edges, path_offsets, propagate
from tests.benchmark.device import gpu_device
from tests.benchmark.measure import Measured, device_ratio, in_fresh_process, interleave, peak_memory

RADIUS, BETA, SQUARINGS = 5, 10, 8


class Inputs(NamedTuple):
    """(C, h, w) scores and (h, w) edges of a photograph of 375 x 500 at stride 4."""

    scores: Tensor
    edge: Tensor


def make_inputs(quick: bool) -> Inputs:
    size = (12, 16) if quick else (94, 125)
    random = torch.Generator().manual_seed(0)
    return Inputs(torch.rand(3, *size, generator=random), torch.rand(*size, generator=random) ** 2)


def ours(inputs: Inputs) -> Tensor:
    return propagate(*inputs, radius=RADIUS, beta=BETA, steps=2**SQUARINGS)


def naive(inputs: Inputs) -> Tensor:
    """The oracle, as the reference does it: the matrix is built, divided, and squared eight times.

    Its affinities are ours, so that what differs is the walk alone; making them takes a millisecond.
    """
    height, width = inputs.edge.shape
    cells = torch.arange(height * width).view(height, width)
    matrix = torch.eye(height * width)
    for (dy, dx), pairs in zip(path_offsets(RADIUS).tolist(), affinity_from_edges(inputs.edge, RADIUS), strict=True):
        columns = slice(max(0, -dx), width - max(0, dx))
        first = cells[: height - dy, columns].flatten()
        second = first + dy * width + dx
        matrix[first, second] = matrix[second, first] = pairs[: height - dy, columns].flatten()
    matrix.pow_(BETA)
    matrix /= matrix.sum(dim=0, keepdim=True)
    square = torch.empty_like(matrix)
    for _ in range(SQUARINGS):
        torch.mm(matrix, matrix, out=square)
        matrix, square = square, matrix
    return ((inputs.scores * (1 - inputs.edge)).flatten(1) @ matrix).view_as(inputs.scores)


def sparse_over_dense(quick: bool) -> dict[str, Measured]:
    """The dense side runs once: it takes minutes, and what a first run costs more is lost in them."""
    inputs = make_inputs(quick)
    wall, cpu = time.perf_counter(), time.process_time()
    expected = naive(inputs)
    dense = (time.perf_counter() - wall, time.process_time() - cpu)
    torch.testing.assert_close(ours(inputs), expected, rtol=1e-3, atol=1e-3)
    sparse = sorted(_time(inputs) for _ in range(1 if quick else 9))
    middle = sparse[len(sparse) // 2]
    extra = {
        "cpu_value": round(dense[1] / sorted(cpu for _, cpu in sparse)[len(sparse) // 2], 4),
        "spread": [round(dense[0] / sparse[-1][0], 4), round(dense[0] / sparse[0][0], 4)],
        "seconds": {"dense": round(dense[0], 4), "sparse": round(middle[0], 4)},
        "rounds": len(sparse),
    }
    return {"walk.sparse_over_dense": Measured(dense[0] / middle[0], extra=extra)}


def _time(inputs: Inputs) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    ours(inputs)
    return time.perf_counter() - wall, time.process_time() - cpu


def gpu(quick: bool) -> dict[str, Measured]:
    device, inputs = gpu_device(), make_inputs(quick)
    there = Inputs(*(x.to(device) for x in inputs))
    torch.testing.assert_close(ours(there).cpu(), ours(inputs), rtol=1e-4, atol=1e-4)
    # the copy back waits for the device
    times = interleave({"gpu": lambda: ours(there).cpu(), "cpu": lambda: ours(inputs)}, 1 if quick else 9)
    return {"walk.gpu_over_cpu": device_ratio(times, "cpu", "gpu")}


def memory(quick: bool) -> dict[str, Measured]:
    peak = in_fresh_process("tests.benchmark.walk", *(["--quick"] if quick else []))
    return {"walk.peak_memory": Measured(peak / 1e6)}


def main(quick: bool) -> None:
    torch.set_num_threads(1)
    ours(Inputs(torch.rand(3, 5, 6), torch.rand(5, 6)))  # libraries loaded and set up; of this size nothing is cached
    inputs = make_inputs(quick)
    print(peak_memory(lambda: ours(inputs)))


if __name__ == "__main__":
    main("--quick" in sys.argv)
