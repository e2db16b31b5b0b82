"""Convolution, normalisation, rectifier: what decoders are made of."""

from math import gcd
from typing import Literal

from torch import nn

Norm = Literal["batch", "group"]
"""`batch` needs a few images per step (`trainer.sync_batchnorm` counts those of all processes); `group` needs one."""


def normalisation(kind: Norm, channels: int) -> nn.Module:
    """Normalisation layer.

    Args:
        kind: `batch`, or `group`: up to 32 groups of at least 4 channels.
        channels: C.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    groups = gcd(32, channels)
    while groups > 1 and channels // groups < 4:
        groups //= 2
    return nn.GroupNorm(groups, channels)


def unit(inputs: int, outputs: int, kernel: int = 1, norm: Norm = "batch", dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, normalisation, rectifier; it begins as He et al. (2015) have it.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: odd side.
        norm: kind of the normalisation.
        dilation: pixels between the kernel's.
    """
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, normalisation(norm, outputs), nn.ReLU(inplace=True))
