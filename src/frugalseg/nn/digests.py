"""Short names of contents: what equal tensors and equal nets share, and no others do."""

import hashlib

import torch
from torch import Tensor, nn


def digest(tensor: Tensor) -> bytes:
    """Name of a tensor's contents, shape and type included.

    Args:
        tensor: on any device.
    """
    array = tensor.detach().contiguous().cpu()
    name = hashlib.blake2b(f"{tuple(array.shape)} {array.dtype}".encode(), digest_size=16)
    name.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return name.digest()


def digest_of_net(net: nn.Module) -> str:
    """Name of a net: of its layers with their strides and dilations, its weights and its statistics.

    Args:
        net: what is not in its printed form (arguments that change the way through it) is not in the name either.
    """
    name = hashlib.blake2b(repr(net).encode(), digest_size=16)
    for key, value in net.state_dict().items():
        name.update(key.encode() + digest(value))
    return name.hexdigest()
