"""Memory that a worker and the main process share."""

import math

import torch
from torch import Tensor
from torch.utils.data import get_worker_info


def batch_memory(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Make an uninitialised tensor for a batch.

    In a worker it lies in the memory that the main process will read, as default_collate's results do; so writing the
    batch is also sending it.

    Args:
        shape: of the tensor.
        dtype: of the tensor.
    """
    size = math.prod(shape)
    if get_worker_info() is None or not size:
        return torch.empty(shape, dtype=dtype)
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(size * dtype.itemsize)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)
