"""Precision of maps, losses and norms, whatever the trainer's is."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay what they are.

    Args:
        x: any floating-point tensor.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
