"""Constants on a device, without waiting for it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def constants(values: Sequence[float], like: Tensor) -> Tensor:
    """Numbers as a tensor.

    Each is filled in where the tensor is: to copy them there from main memory, as `Tensor.new_tensor` does, would wait
    for all work that the device has been given before.

    Args:
        values: n numbers.
        like: of the type and the device that are wanted.

    Returns:
        (n,).
    """
    return torch.stack([like.new_full((), value) for value in values])
