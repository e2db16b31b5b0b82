"""The parameter rule of golden/cti/README.md section 1: every tensor is a pure function of its name and shape."""

import math
import zlib

import numpy as np
import torch
from torch import nn


def rule_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The float64 tensor that the golden vectors hold under `name`."""
    z = np.random.default_rng(zlib.crc32(name.encode("utf-8"))).standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "bias":
        z = 0.02 * z
    elif ".norm" in name or name.startswith("norm."):
        z = 1 + 0.1 * z
    elif last == "weight" and len(shape) >= 2:
        gain = 2 if name.endswith("attn.qkv.weight") else 1
        z = gain * z / math.sqrt(math.prod(shape[1:]))
    else:
        z = 0.5 * z
    return torch.from_numpy(z)


def apply_rule(net: nn.Module) -> None:
    """Fill every parameter of a network whose names are those of the README."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(rule_tensor(name, tuple(parameter.shape)))


def rule_rows(index: int, dim: int, rows: int = 30) -> torch.Tensor:
    """What class `index` holds in a memory that the README calls pre-filled: (rows, dim), float64."""
    return torch.from_numpy(np.random.default_rng(1000 + index).standard_normal((rows, dim)))
