"""Frozen backbones for few-shot segmentation: features of four stages, the last three on one grid.

A few-shot method learns to compare features, not to make them: parameters and normalisation stay as they were
pretrained. The cut and the dilation are PFENet's (dsmf.md section 3).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frugalseg.nn.backbone import ResNetStages


class Early(NamedTuple):
    """The first three stages, (N, D_i, h_i, w_i); c2 and c3 share one grid, that of c1 is finer."""

    c1: Tensor
    c2: Tensor
    c3: Tensor


class Stages(NamedTuple):
    """Features (N, D_i, h_i, w_i); c2, c3 and c4 share one grid, that of c1 is finer."""

    c1: Tensor
    c2: Tensor
    c3: Tensor
    c4: Tensor


class FrozenBackbone(nn.Module):
    """What the backbones share: a forward pass without a graph, and modes that never change.

    Args:
        frozen: False lets everything learn, normalisation statistics too; for pretraining alone.

    Attributes:
        channels: depths of c1 to c4.
    """

    channels: tuple[int, int, int, int]

    def __init__(self, frozen: bool = True) -> None:
        super().__init__()
        self.frozen = frozen

    @abstractmethod
    def _early(self, image: Tensor) -> Early: ...

    @abstractmethod
    def _last(self, c3: Tensor) -> Tensor: ...

    def _settle(self) -> None:
        """Freeze the layers, once they exist; a new module is in training mode without anybody having called train."""
        self.requires_grad_(not self.frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """Switch modes; a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, image: Tensor) -> Stages:
        """Features of all four stages.

        Args:
            image: (N, 3, H, W).
        """
        early = self.early(image)
        return Stages(*early, self.last(early.c3))

    def early(self, image: Tensor) -> Early:
        """All stages but the last, which at full resolution costs as much as these three.

        Args:
            image: (N, 3, H, W).
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._early(image)

    def last(self, c3: Tensor) -> Tensor:
        """Only the last stage; the prior masks what goes into it.

        Args:
            c3: (N, D_3, h, w), features of the third stage, perhaps masked.

        Returns:
            (N, D_4, h, w).
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._last(c3)


def _dilate(layer: nn.Module, dilation: int) -> None:
    """Dilate every 3x3 convolution of a ResNet layer.

    timm's own `output_stride` leaves the first block at the dilation of the layer before; PFENet dilates all blocks.
    """
    for module in layer.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (dilation, dilation)


class DilatedResNet(FrozenBackbone):
    """A timm ResNet whose last two layers keep the grid of the second and are dilated instead.

    Parameter names are torchvision's, so that the usual ImageNet files fit (`nn.weights`).

    Args:
        name: a ResNet of timm (`resnet50`, `resnet101`, ...).
        strides: step of the stem, of layer1 and of layer2. Stem 4 is convolution 2 and max-pooling 2; stem 2 leaves
            the pooling out.
        dilations: of layer3 and of layer4.
        frozen: False for pretraining.
        options: further arguments of the timm ResNet, e.g. `layers` and `channels` of a small net.

    Raises:
        ValueError: strides or dilations of another length.
    """

    def __init__(
        self,
        name: str = "resnet50",
        strides: Sequence[int] = (4, 1, 2),
        dilations: Sequence[int] = (2, 4),
        frozen: bool = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(frozen)
        if len(strides) != 3 or len(dilations) != 2:
            raise ValueError(f"three strides and two dilations are needed, got {tuple(strides)} and {tuple(dilations)}")
        net: Any = ResNetStages(name, (*strides, 1, 1), frozen_norm=False, options=options)
        for layer, dilation in zip((net.layer3, net.layer4), dilations, strict=True):
            _dilate(layer, dilation)
        # its parts and not the net itself: a further name would stand before those of the parameters
        self.conv1: nn.Module = net.conv1
        self.bn1: nn.Module = net.bn1
        self.act1: nn.Module = net.act1
        self.maxpool: nn.Module = net.maxpool
        self.layer1: nn.Module = net.layer1
        self.layer2: nn.Module = net.layer2
        self.layer3: nn.Module = net.layer3
        self.layer4: nn.Module = net.layer4
        _, c1, c2, c3, c4 = net.channels
        self.channels = (c1, c2, c3, c4)
        self._settle()

    def _early(self, image: Tensor) -> Early:
        stem = self.maxpool(self.act1(self.bn1(self.conv1(image))))
        c1 = self.layer1(stem)
        c2 = self.layer2(c1)
        return Early(c1, c2, self.layer3(c2))

    def _last(self, c3: Tensor) -> Tensor:
        result: Tensor = self.layer4(c3)
        return result


class DilatedVGG(FrozenBackbone):
    """A timm VGG in PFENet's place of a ResNet: its five blocks, the last without its pooling.

    The first block is the stem, the other four are c1 to c4. Nothing needs dilation: the fourth and the fifth block
    share the stride-16 grid, and c2 (stride 8) is resized to it, bilinearly with corners aligned.

    Args:
        name: a VGG of timm; the spec's is `vgg16_bn`.
        frozen: False for pretraining.
        options: further arguments of the timm VGG.
    """

    def __init__(self, name: str = "vgg16_bn", frozen: bool = True, options: dict[str, Any] | None = None) -> None:
        super().__init__(frozen)
        # the classifier is dropped; at its full width it would take 480 MB for nothing
        net: Any = timm.create_model(name, pretrained=False, num_classes=0, mlp_ratio=1 / 4096, **(options or {}))
        pools = [index for index, layer in enumerate(net.features) if isinstance(layer, nn.MaxPool2d)]
        self.features: nn.Sequential = net.features[: pools[4]]
        # first layers of c1, c2, c3 and c4: a block ends with its pooling
        self.starts: tuple[int, ...] = tuple(pool + 1 for pool in pools[:4])
        _, c1, c2, c3, c4 = (int(info["num_chs"]) for info in net.feature_info[:5])
        self.channels = (c1, c2, c3, c4)
        self._settle()

    def _block(self, index: int, x: Tensor) -> Tensor:
        """Run block `index`; 0 is the stem, 1 to 4 are c1 to c4."""
        ends = (0, *self.starts, len(self.features))
        result: Tensor = self.features[ends[index] : ends[index + 1]](x)
        return result

    def _early(self, image: Tensor) -> Early:
        c1 = self._block(1, self._block(0, image))
        c2 = self._block(2, c1)
        c3 = self._block(3, c2)
        size = (c3.shape[-2], c3.shape[-1])
        return Early(c1, F.interpolate(c2, size, mode="bilinear", align_corners=True), c3)

    def _last(self, c3: Tensor) -> Tensor:
        return self._block(4, c3)


def dilated(name: str, options: dict[str, Any] | None = None) -> FrozenBackbone:
    """A backbone by name: a VGG where the name begins so, else a ResNet.

    Args:
        name: of timm.
        options: further arguments of `DilatedResNet` or `DilatedVGG`.
    """
    make = DilatedVGG if name.startswith("vgg") else DilatedResNet
    return make(name, **(options or {}))
