"""The weight rule of golden/sfc/README.md: every tensor is a pure function of its torchvision name."""

import zlib

import numpy as np
import torch
from torch import nn


def rule_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    z = np.random.default_rng(zlib.crc32(name.encode("ascii"))).standard_normal(shape)
    if name.endswith("running_mean"):
        z = 0.1 * z
    elif name.endswith("running_var"):
        z = 1 + 0.1 * np.abs(z)
    elif len(shape) == 4:
        z = z * np.sqrt(2 / (shape[1] * shape[2] * shape[3]))
    elif name.endswith("bias"):
        z = 0.1 * z
    else:
        z = 0.7 + 0.1 * z
    return torch.from_numpy(np.asarray(z, dtype=np.float32))


def bare(name: str) -> str:
    return name.removeprefix("net.").removeprefix("backbone.").removeprefix("heads.")


def apply_rule(net: nn.Module) -> None:
    """Fill backbone and heads (module names `backbone.*`, `heads.*`)."""
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                tensor.copy_(rule_tensor(bare(name), tuple(tensor.shape)))
