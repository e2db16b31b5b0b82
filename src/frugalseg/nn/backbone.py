"""ResNets from timm as five stages, with strides set from outside and frozen parts.

Papers on activation maps keep more resolution than a classifier does and never touch the early stages. timm's
`output_stride` would dilate the last stage; here only the strides change (sfc.md 2.1).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


class Stages(NamedTuple):
    """Outputs of the five stages, each (N, D_i, h_i, w_i)."""

    stem: Tensor
    layer1: Tensor
    layer2: Tensor
    layer3: Tensor
    layer4: Tensor


def _set_stride(layer: nn.Module, stride: int) -> None:
    """Let the first block of a ResNet layer step by `stride` (on its 3x3 convolution, as torchvision does)."""
    first: Any = next(layer.children())
    for convolution in first.modules():
        if isinstance(convolution, nn.Conv2d) and convolution.stride != (1, 1):
            convolution.stride = (1, 1)
    if stride == 1:
        return
    bottleneck = hasattr(first, "conv3")
    (first.conv2 if bottleneck else first.conv1).stride = (stride, stride)
    if first.downsample is None:
        raise ValueError(f"a stage without a projection cannot step by {stride}")
    first.downsample[0].stride = (stride, stride)


class ResNetStages(nn.Module):
    """A timm ResNet that returns all five stages.

    Parameter names are torchvision's (`conv1.weight`, `layer1.0.conv1.weight`, ...), so that the usual ImageNet files
    fit.

    Args:
        name: a ResNet of timm (`resnet50`, `resnet18`, ...).
        strides: step of the stem and of the four layers. Stem 4 is convolution 2 and max-pooling 2; stem 2 leaves the
            pooling out.
        trained_from: first stage that learns. Earlier ones run without a graph and never get a gradient.
        frozen_norm: batch normalisation always uses its running statistics (its scale and shift still learn).
        options: further arguments of the timm ResNet, e.g. `layers` and `channels` of a small net.
    """

    def __init__(
        self,
        name: str = "resnet50",
        strides: Sequence[int] = (4, 1, 2, 2, 1),
        trained_from: str = "layer3",
        frozen_norm: bool = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(strides) != len(STAGES) or strides[0] not in (2, 4):
            raise ValueError(f"strides must be five numbers that begin with 2 or 4, got {tuple(strides)}")
        if trained_from not in STAGES:
            raise ValueError(f"trained_from must be one of {', '.join(STAGES)}, got {trained_from!r}")
        net: Any = timm.create_model(name, pretrained=False, num_classes=0, **(options or {}))
        self.conv1: nn.Module = net.conv1
        self.bn1: nn.Module = net.bn1
        self.act1: nn.Module = net.act1
        self.maxpool = net.maxpool if strides[0] == 4 else nn.Identity()
        for stage, stride in zip(STAGES[1:], strides[1:], strict=True):
            layer = getattr(net, stage)
            _set_stride(layer, stride)
            setattr(self, stage, layer)
        # depth of each stage; a timm net is untyped, so the numbers are made plain ones
        self.channels: tuple[int, ...] = tuple(int(info["num_chs"]) for info in net.feature_info)
        # pixels of the image per cell of each stage
        self.steps: tuple[int, ...] = tuple(math.prod(strides[: i + 1]) for i in range(len(strides)))
        self.output_stride = self.steps[-1]
        self.frozen_norm = frozen_norm
        self.first_trained = STAGES.index(trained_from)
        for stage in STAGES[: self.first_trained]:
            self._stage(stage).requires_grad_(False)
        # a new module is in training mode without anybody having called train()
        self.train(self.training)

    def _stage(self, stage: str) -> nn.Module:
        if stage == "stem":
            return nn.Sequential(self.conv1, self.bn1, self.act1, self.maxpool)
        module: nn.Module = getattr(self, stage)
        return module

    def train(self, mode: bool = True) -> "ResNetStages":
        """Switch modes; frozen normalisation stays in evaluation mode."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Tensor) -> Stages:
        """Run all stages.

        Args:
            image: (N, 3, H, W).

        Returns:
            The five feature maps; those before `trained_from` carry no gradient.
        """
        outputs: list[Tensor] = []
        x = image
        for index, stage in enumerate(STAGES):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= self.first_trained):
                x = self._stage(stage)(x)
            outputs.append(x)
        return Stages(*outputs)
