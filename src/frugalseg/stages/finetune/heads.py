"""Heads on a backbone that learns too: one linear map, convolutions, Semantic FPN; UperNet has a file of its own.

segmentation_models_pytorch has decoders of the last two, but not by themselves in its interface, with batch
normalisation that cannot be turned off everywhere, and for maps that are exactly twice as large from level to level.
"""

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from frugalseg.nn.units import Norm, unit
from frugalseg.ops.cam import resize


def classifier(channels: int, num_classes: int) -> nn.Conv2d:
    """1x1 convolution to the classes; begins near 0, so that every class is equally likely."""
    convolution = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(convolution.weight, std=0.01)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


class Linear(nn.Module):
    """One linear map per place of the dense features: nothing else is new (mevt.md b.1 R3, d.4).

    Args:
        widths: (D,).
        num_classes: K.
        norm: not looked at.
    """

    reads_pyramid: ClassVar[bool] = False

    def __init__(self, widths: Sequence[int], num_classes: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.classify = classifier(widths[0], num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """((N, D, h, w),) -> (N, K, h, w)."""
        logits: Tensor = self.classify(maps[0])
        return logits


class FCN(nn.Module):
    """3x3 convolutions with normalisation, and a linear map.

    MoCo's and SlotCon's transfer: two of 256 channels with dilation 6 on a ResNet of stride 16, no dropout. mmseg's
    auxiliary head: one of 256.

    Args:
        widths: (D,).
        num_classes: K.
        norm: kind of the normalisation.
        channels: of the convolutions.
        convolutions: how many.
        dilation: of each.
        dropout: share of the channels that are dropped before the linear map.
    """

    reads_pyramid: ClassVar[bool] = False

    def __init__(
        self,
        widths: Sequence[int],
        num_classes: int,
        norm: Norm = "batch",
        channels: int = 512,
        convolutions: int = 2,
        dilation: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        inputs = [widths[0], *[channels] * convolutions]
        self.layers = nn.Sequential(*(unit(inputs[i], channels, 3, norm, dilation) for i in range(convolutions)))
        self.dropout, self.classify = nn.Dropout2d(dropout), classifier(inputs[-1], num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """((N, D, h, w),) -> (N, K, h, w)."""
        logits: Tensor = self.classify(self.dropout(self.layers(maps[0])))
        return logits


class SemanticFPN(nn.Module):
    """Panoptic FPN's semantic branch (Kirillov et al., CVPR 2019, section 3.1).

    A feature pyramid (1x1 convolutions, each level plus the one above it enlarged, 3x3 convolutions); each level goes
    up to the finest by as many steps of 3x3 convolution, normalisation, rectifier, bilinear doubling as it takes; sum,
    dropout, linear map. The paper norms by groups, mmseg's configurations by batches.

    Args:
        widths: channels of the four maps.
        num_classes: K.
        norm: kind of the normalisation.
        width: channels of the pyramid.
        channels: of the branches.
        dropout: share of the channels that are dropped before the linear map.
    """

    reads_pyramid: ClassVar[bool] = True

    def __init__(
        self,
        widths: Sequence[int],
        num_classes: int,
        norm: Norm = "batch",
        width: int = 256,
        channels: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in widths)
        self.branches = nn.ModuleList(
            nn.ModuleList(unit(channels if step else width, channels, 3, norm) for step in range(max(1, level)))
            for level in range(len(widths))
        )
        self.dropout, self.classify = nn.Dropout2d(dropout), classifier(channels, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps (N, C_i, h_i, w_i), the finest first -> (N, K, h_1, w_1)."""
        sizes = [(each.shape[-2], each.shape[-1]) for each in maps]
        levels = [lateral(each) for lateral, each in zip(self.lateral, maps, strict=True)]
        for i in range(len(levels) - 2, -1, -1):
            levels[i] = levels[i] + nn.functional.interpolate(levels[i + 1], size=sizes[i], mode="nearest")
        parts = []
        for level, (smooth, branch) in enumerate(zip(self.smooth, self.branches, strict=True)):
            x = smooth(levels[level])
            for step, convolve in enumerate(cast(nn.ModuleList, branch)):
                x = resize(convolve(x), sizes[max(0, level - step - 1)])
            parts.append(x)
        logits: Tensor = self.classify(self.dropout(torch.stack(parts).sum(dim=0)))
        return logits
