"""Heads of the DeepLab family: LargeFOV (V1), the sum of dilated convolutions (V2), ASPP with a decoder (V3+).

Each takes `Features` and gives logits (N, K, h, w) on the grid of the features that it ends with.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from frugalseg.ops.cam import resize
from frugalseg.stages.deeplab.backbones import Features


def _unit(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution of the same size, batch normalisation, rectifier."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _he(module: nn.Module) -> None:
    """Start convolutions as rectified ones need it."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class LargeFOV(nn.Module):
    """A few convolutions of which the first ones are 3x3 and dilated (DeepLab V1).

    Two published forms: 4096 -> 512 -> K, both dilated (cti.md 9), and 4096 -> 512 -> 512 -> K, the first dilated, with
    normalisation and dropout (settings (b) of sfc.md 8).

    Args:
        channels: depths of low and high features.
        strides: not looked at.
        num_classes: K.
        hidden: depths between features and logits.
        dilation: of the 3x3 convolutions.
        dilated: how many of the convolutions are 3x3 and dilated, the rest is 1x1; None for all.
        norm: batch normalisation after each hidden convolution.
        dropout: probability that a channel's pixel is dropped before the last convolution.
    """

    uses_low: ClassVar[bool] = False

    def __init__(
        self,
        channels: tuple[int, int],
        strides: tuple[int, int],
        num_classes: int,
        hidden: Sequence[int] = (512,),
        dilation: int = 12,
        dilated: int | None = None,
        norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        depths = [channels[1], *hidden, num_classes]
        dilated = len(depths) - 1 if dilated is None else dilated
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(depths)):
            last, wide = index == len(depths) - 2, index < dilated
            kernel, step = (3, dilation) if wide else (1, 1)
            if last and dropout:
                layers.append(nn.Dropout(dropout))
            if norm and not last:
                layers.append(_unit(inputs, outputs, kernel, step))
                continue
            layers.append(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * step, dilation=step))
            if not last:
                layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)
        _he(self)

    def forward(self, features: Features) -> Tensor:
        """Features -> (N, K, h, w)."""
        logits: Tensor = self.layers(features.high)
        return logits


def _branch(inputs: int, outputs: int, rate: int) -> nn.Conv2d:
    """Dilated 3x3 convolution that begins as the authors' Caffe nets do, near 0: every class is equally likely then."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate)
    nn.init.normal_(convolution.weight, std=0.01)
    nn.init.zeros_(cast(Tensor, convolution.bias))
    return convolution


class ASPPSum(nn.Module):
    """The sum of parallel dilated 3x3 convolutions to the classes (DeepLab V2, ASPP-L).

    Args:
        channels: depths of low and high features.
        strides: not looked at.
        num_classes: K.
        rates: dilations.
    """

    uses_low: ClassVar[bool] = False

    def __init__(
        self,
        channels: tuple[int, int],
        strides: tuple[int, int],
        num_classes: int,
        rates: Sequence[int] = (6, 12, 18, 24),
    ) -> None:
        super().__init__()
        if not rates:
            raise ValueError("head_options.rates: at least one dilation is needed")
        self.branches = nn.ModuleList(_branch(channels[1], num_classes, rate) for rate in rates)

    def forward(self, features: Features) -> Tensor:
        """Features -> (N, K, h, w)."""
        logits: Tensor = self.branches[0](features.high)
        for branch in self.branches[1:]:
            logits = logits + branch(features.high)
        return logits


class V3Plus(nn.Module):
    """ASPP with image pooling, and a decoder that looks at early features (DeepLab V3+, plain convolutions).

    Args:
        channels: depths of low and high features.
        strides: pixels per cell of both.
        num_classes: K.
        rates: dilations; None for 6, 12, 18 at stride 16 and in proportion at others.
        width: depth of the branches and of the decoder.
        low_width: depth that the early features are reduced to.
        dropout: probability after the projection.
    """

    uses_low: ClassVar[bool] = True

    def __init__(
        self,
        channels: tuple[int, int],
        strides: tuple[int, int],
        num_classes: int,
        rates: Sequence[int] | None = None,
        width: int = 256,
        low_width: int = 48,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        low, high = channels
        rates = [max(1, rate * 16 // strides[1]) for rate in (6, 12, 18)] if rates is None else rates
        self.branches = nn.ModuleList([_unit(high, width), *(_unit(high, width, 3, rate) for rate in rates)])
        self.pool = _unit(high, width)
        self.project = nn.Sequential(_unit(width * (len(rates) + 2), width), nn.Dropout(dropout))
        self.reduce = _unit(low, low_width)
        self.decode = nn.Sequential(_unit(width + low_width, width, 3), _unit(width, width, 3))
        self.classify = nn.Conv2d(width, num_classes, 1)
        _he(self)

    def forward(self, features: Features) -> Tensor:
        """Features -> (N, K, h_low, w_low)."""
        high = features.high
        pooled = self.pool(high.mean(dim=(-2, -1), keepdim=True))
        parts = [*(branch(high) for branch in self.branches), pooled.expand(-1, -1, *high.shape[-2:])]
        context = self.project(torch.cat(parts, dim=1))
        low = self.reduce(features.low)
        context = resize(context, (low.shape[-2], low.shape[-1]))
        logits: Tensor = self.classify(self.decode(torch.cat([context, low], dim=1)))
        return logits


HEADS: dict[str, type[LargeFOV] | type[ASPPSum] | type[V3Plus]] = {
    "largefov": LargeFOV,
    "v2": ASPPSum,
    "v3plus": V3Plus,
}


def build_head(
    name: str,
    channels: tuple[int, int],
    strides: tuple[int, int],
    num_classes: int,
    options: dict[str, Any] | None = None,
) -> LargeFOV | ASPPSum | V3Plus:
    """Make a head.

    Args:
        name: a key of `HEADS`.
        channels: depths of low and high features.
        strides: pixels per cell of both.
        num_classes: K.
        options: further arguments of the head.

    Raises:
        ValueError: no such head, or an option that it does not have.
    """
    if name not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {name!r}")
    try:
        return HEADS[name](channels, strides, num_classes, **(options or {}))
    except TypeError as error:
        raise ValueError(f"head_options of {name}: {error}") from error
