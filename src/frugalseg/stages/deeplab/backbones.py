"""Backbones of the segmenter behind one face: any timm net with dilation, SFC's strided ResNet, ResNet-38.

All of them keep the parameter names of the usual weights files under `net`, so that
`load_backbone_weights(backbone.net, ...)` reads torchvision's, timm's and the converted ResNet-38 files.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.nn.backbone import ResNetStages
from frugalseg.nn.resnet38d import ResNet38

LOW_STRIDE = 4
"""Stride of the early features that a decoder looks for, as in DeepLab V3+."""
PROBE_SIDE = 64
"""Side of the image that tells a net's strides."""


class Features(NamedTuple):
    """What heads read."""

    low: Tensor
    """(N, D_low, h_low, w_low) early features of fine resolution."""
    high: Tensor
    """(N, D, h, w) features of the last stage."""


def _norms(module: nn.Module) -> Iterator[nn.Module]:
    return (m for m in module.modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm))


class Backbone(nn.Module):
    """A net and what heads need to know of it.

    Args:
        net: the net; its parameter names are those of weights files.
        channels: depths of low and high features.
        strides: pixels per cell of low and high features.
        frozen_norm: batch normalisation is a constant: it uses its running statistics, and scale and shift do not
            learn. Small batches call for it, and the authors' DeepLab V2 does it.
    """

    def __init__(
        self, net: nn.Module, channels: tuple[int, int], strides: tuple[int, int], frozen_norm: bool = True
    ) -> None:
        super().__init__()
        self.net, self.channels, self.strides, self.frozen_norm = net, channels, strides, frozen_norm
        if frozen_norm:
            for norm in _norms(net):
                norm.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Switch modes; frozen normalisation stays in evaluation mode."""
        super().train(mode)
        if self.frozen_norm:
            for norm in _norms(self.net):
                norm.eval()
        return self

    def forward(self, image: Tensor) -> Features:
        """(N, 3, H, W) -> features."""
        raise NotImplementedError


class DilatedBackbone(Backbone):
    """Any timm net that gives intermediate features; strides beyond `output_stride` become dilation.

    As in torchvision, the first block of a dilated ResNet stage still has the dilation of the stage before; the
    Caffe-style nets of deeplab-pytorch dilate it too and have their stride on the first 1x1 convolution.

    Args:
        name: timm's name, e.g. `resnet101`, `convnext_tiny`.
        output_stride: pixels per cell of the last stage, 8 or 16.
        frozen_norm: see `Backbone`.
        options: further arguments of the timm model.

    Raises:
        ValueError: no such net, a setting that it does not take, or a stride that it cannot have.
    """

    def __init__(
        self,
        name: str = "resnet101",
        output_stride: int = 8,
        frozen_norm: bool = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        net = _timm_net(name, output_stride, options or {})
        stages, any_size = _look(name, net)
        if stages[-1][1] != output_stride:
            raise ValueError(f"{name} cannot have output stride {output_stride}, only {stages[-1][1]}")
        finest = min(stride for _, stride in stages if stride >= min(LOW_STRIDE, output_stride))
        fine = [index for index, (_, stride) in enumerate(stages) if stride == finest]
        # a transformer has one stride throughout: after a quarter of its blocks features are still local
        low, high = fine[len(fine) // 4], len(stages) - 1
        net.prune_intermediate_layers([low, high], prune_norm=True, prune_head=True)
        super().__init__(net, (stages[low][0], stages[high][0]), (stages[low][1], stages[high][1]), frozen_norm)
        self.taken = [low, high]
        # others are filled up to whole cells
        self.multiple = 1 if any_size else output_stride

    def forward(self, image: Tensor) -> Features:
        """(N, 3, H, W) -> features; a side that the net does not take is filled up with zeros."""
        height, width = image.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        image = F.pad(image, (0, right, 0, down)) if down or right else image
        found = cast(Any, self.net).forward_intermediates(image, indices=self.taken, intermediates_only=True)
        if not (down or right):
            return Features(*found)
        sides = [(-(-height // stride), -(-width // stride)) for stride in self.strides]
        return Features(*(x[..., :h, :w] for x, (h, w) in zip(found, sides, strict=True)))


def _timm_net(name: str, output_stride: int, options: dict[str, Any]) -> Any:
    """A timm net at an output stride, or as it is where it cannot dilate."""
    reason = ""
    for arguments in ({"output_stride": output_stride, **options}, options):
        try:
            net: Any = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
        except (TypeError, AssertionError, ValueError, RuntimeError, NotImplementedError) as error:
            reason = str(error) or type(error).__name__
            continue
        if not hasattr(net, "forward_intermediates"):
            raise ValueError(f"{name}: timm's net gives no intermediate features; choose another backbone")
        return net
    raise ValueError(f"backbone {name}: {reason}")


@torch.no_grad()
def _look(name: str, net: Any) -> tuple[list[tuple[int, int]], bool]:
    """Depth and stride of each stage, and whether any side gives ceil(side / stride) cells.

    They are looked at, because timm's own table forgets the dilation of some families. Nets of patches refuse other
    sides or drop the rest of the image.
    """
    net.eval()
    try:
        found = net.forward_intermediates(torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE), intermediates_only=True)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"backbone {name} does not take images of any size ({error}); see backbone_options") from error
    stages = [(x.shape[1], PROBE_SIDE // x.shape[-1]) for x in found]
    try:
        odd = net.forward_intermediates(torch.zeros(1, 3, PROBE_SIDE + 1, PROBE_SIDE + 1), intermediates_only=True)
        any_size = all(x.shape[-1] == PROBE_SIDE // stride + 1 for x, (_, stride) in zip(odd, stages, strict=True))
    except (AssertionError, RuntimeError, ValueError):
        any_size = False
    net.train()
    return stages, any_size


class StridedBackbone(Backbone):
    """A timm ResNet whose steps are set one by one and that is never dilated, as SFC's and the miniatures' are.

    Args:
        name: a ResNet of timm.
        strides: step of the stem and of the four layers, see `frugalseg.nn.backbone.ResNetStages`.
        frozen_norm: see `Backbone`.
        options: further arguments of the timm model.
    """

    def __init__(
        self, name: str, strides: Sequence[int], frozen_norm: bool = True, options: dict[str, Any] | None = None
    ) -> None:
        net = ResNetStages(name, strides, trained_from="stem", frozen_norm=False, options=options)
        low = strides[0] * strides[1]
        super().__init__(net, (net.channels[1], net.channels[4]), (low, net.output_stride), frozen_norm)

    def forward(self, image: Tensor) -> Features:
        """(N, 3, H, W) -> features of layer1 and layer4."""
        stages = self.net(image)
        return Features(stages.layer1, stages.layer4)


class WideBackbone(Backbone):
    """ResNet-38, whose stride is 8 throughout: its low features are the input of b5.

    Args:
        frozen_norm: see `Backbone`.
        options: further arguments of `ResNet38`; `trained_from` is `b3` by default, as in PSA and its followers.
    """

    def __init__(self, frozen_norm: bool = True, options: dict[str, Any] | None = None) -> None:
        net = ResNet38(frozen_norm=frozen_norm, **(options or {}))
        super().__init__(net, (net.channels[0], net.channels[-1]), (net.output_stride, net.output_stride), frozen_norm)

    def forward(self, image: Tensor) -> Features:
        """(N, 3, H, W) -> features before b5 and after the last normalisation."""
        found = self.net(image)
        return Features(found.conv4, found.conv6)


def build_backbone(
    name: str,
    output_stride: int = 8,
    strides: Sequence[int] | None = None,
    frozen_norm: bool = True,
    options: dict[str, Any] | None = None,
) -> Backbone:
    """Make a backbone.

    Args:
        name: `resnet38d`, or a name of timm.
        output_stride: pixels per cell of the last stage.
        strides: five steps instead of an output stride: a ResNet without dilation.
        frozen_norm: see `Backbone`.
        options: further arguments of the net.

    Raises:
        ValueError: no such net, or a setting that it does not take.
    """
    try:
        if name == "resnet38d":
            if output_stride != 8 or strides is not None:
                raise ValueError("resnet38d has output stride 8 and no other")
            return WideBackbone(frozen_norm, options)
        if strides is not None:
            return StridedBackbone(name, strides, frozen_norm, options)
    except TypeError as error:
        raise ValueError(f"backbone_options of {name}: {error}") from error
    return DilatedBackbone(name, output_stride, frozen_norm, options)
