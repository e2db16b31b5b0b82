"""What a card can do at most: big square matrix products in each precision, measured in the same run as what uses them."""

from functools import cache

import torch

from tests.benchmark.device import gpu_device, name_of, seconds_of
from tests.benchmark.measure import Measured

PRECISIONS = ("bf16", "tf32", "fp32")


@cache
def matrix_rate(device: str, precision: str, side: int) -> float:
    """Multiplications and additions per second of square products; the best of three trials.

    Args:
        device: to run on.
        precision: `bf16`; `tf32`, in which PyTorch's convolutions of float32 run on tensor cores; or `fp32`.
        side: of the matrices.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, two = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(one)
    least = 0.3 if device == "cuda" else 0.0
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        seconds = min(seconds_of(device, lambda: torch.mm(one, two, out=out), least) for _ in range(3))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * side**3 / seconds


def side_of(quick: bool) -> int:
    return 128 if quick else 8192


def rates(quick: bool) -> dict[str, Measured]:
    device, side = gpu_device(), side_of(quick)
    note = f"{side} x {side}, {name_of(device)}"
    return {
        f"gpu.matrix_rate_{precision}": Measured(matrix_rate(device, precision, side) / 1e12, note)
        for precision in PRECISIONS
    }
