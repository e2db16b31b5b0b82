"""IRN's network: edges and displacements on a frozen ResNet (Ahn et al., CVPR 2019; sfc.md 7.2). Torch only.

Letters: N images, H x W pixels, h x w cells on the grid of layer1, where all maps of this stage live.
"""

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.nn.backbone import ResNetStages, Stages


class Maps(NamedTuple):
    """What one pass gives."""

    edge: Tensor
    """(N, h, w) logits of a class boundary."""
    displacement: Tensor | None
    """(N, 2, h, w) estimate of (dy, dx) in cells to the centre of a pixel's object, or None without that branch."""


class Prediction(NamedTuple):
    """What is kept of one image."""

    edge: Tensor
    """(h, w) float32 in [0, 1]."""
    displacement: Tensor | None
    """(2, h, w) float32, or None."""


def wide(x: Tensor) -> Tensor:
    """At least float32: sigmoids and losses are not computed in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def block(inputs: int, outputs: int, groups: int, factor: int = 1) -> nn.Sequential:
    """1x1 convolution, group normalisation, bilinear upsampling where there is a factor, ReLU.

    The first two keep the places 0 and 1 that the published weights give them.
    """
    layers = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(groups, outputs)]
    upsample = [nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)] if factor > 1 else []
    return nn.Sequential(*layers, *upsample, nn.ReLU(inplace=True))


def crop_like(x: Tensor, other: Tensor) -> Tensor:
    """The upper left part of `x` that has the size of `other`: upsampled grids overhang where a side is odd."""
    return x[..., : other.shape[-2], : other.shape[-1]]


class EdgeHead(nn.Module):
    """Five branches to 32 channels each on the grid of layer1, and one convolution over all of them.

    Parameter names are those of IRN's published weights (`fc_edge1.0.weight`, ...).

    Args:
        channels: depth of the five stages.
        factors: stride of each stage over that of layer1.
    """

    def __init__(self, channels: Sequence[int], factors: Sequence[int]) -> None:
        super().__init__()
        self.fc_edge1, self.fc_edge2, self.fc_edge3, self.fc_edge4, self.fc_edge5 = (
            block(depth, 32, 4, factor) for depth, factor in zip(channels, factors, strict=True)
        )
        self.fc_edge6 = nn.Conv2d(5 * 32, 1, 1)

    def forward(self, stages: Stages) -> Tensor:
        """Five feature maps -> (N, h, w) logits."""
        branches = (self.fc_edge1, self.fc_edge2, self.fc_edge3, self.fc_edge4, self.fc_edge5)
        maps = [branch(x) for branch, x in zip(branches, stages, strict=True)]
        logits: Tensor = self.fc_edge6(torch.cat([crop_like(m, maps[1]) for m in maps], dim=1))
        return logits[:, 0]


class DisplacementHead(nn.Module):
    """Seven blocks that end in the displacement to the object's centre; semantic labels do not need them.

    Args:
        channels: depth of the five stages.
        factors: stride of each stage over that of layer1.
    """

    mean_shift: Tensor

    def __init__(self, channels: Sequence[int], factors: Sequence[int]) -> None:
        super().__init__()
        # layer3 and layer4 meet layer2 on its grid, and the three of them go on to that of layer1
        to_layer2 = [factor // factors[2] for factor in factors]
        self.fc_dp1 = block(channels[0], 64, 8)
        self.fc_dp2 = block(channels[1], 128, 16)
        self.fc_dp3 = block(channels[2], 256, 16)
        self.fc_dp4 = block(channels[3], 256, 16, to_layer2[3])
        self.fc_dp5 = block(channels[4], 256, 16, to_layer2[4])
        self.fc_dp6 = block(3 * 256, 256, 16, factors[2])
        self.fc_dp7 = nn.Sequential(*block(64 + 128 + 256, 256, 16), nn.Conv2d(256, 2, 1, bias=False))
        # the mean over a list of images, known when training ends (sfc.md 7.2)
        self.register_buffer("mean_shift", torch.zeros(2))

    def forward(self, stages: Stages) -> Tensor:
        """Five feature maps -> (N, 2, h, w), less the mean shift in evaluation mode."""
        fine = self.fc_dp2(stages.layer1)
        middle = self.fc_dp3(stages.layer2)
        coarse = [self.fc_dp4(stages.layer3), self.fc_dp5(stages.layer4)]
        deep = self.fc_dp6(torch.cat([middle, *(crop_like(x, middle) for x in coarse)], dim=1))
        displacement: Tensor = self.fc_dp7(torch.cat([self.fc_dp1(stages.stem), fine, crop_like(deep, fine)], dim=1))
        return displacement if self.training else displacement - self.mean_shift[:, None, None]


class IRNet(nn.Module):
    """A backbone that never changes, and the two heads.

    Args:
        backbone: a timm ResNet.
        strides: of stem and layers, see `ResNetStages`. Layer1 must not step: the stem's branch shares its grid.
        displacement: build the displacement head too; the edges are the same without it (sfc.md 13.8).
        backbone_options: further arguments of the timm model.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        strides: Sequence[int] = (4, 1, 2, 2, 1),
        displacement: bool = False,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if strides[1] != 1:
            raise ValueError(
                f"strides: IRN's edges live on the grid of stem and layer1, which must not step: {strides}"
            )
        self.backbone = ResNetStages(backbone, strides, options=backbone_options).requires_grad_(False)
        self.stride = strides[0]
        factors = [total // self.stride for total in accumulate(strides, mul)]
        self.edge = EdgeHead(self.backbone.channels, factors)
        self.displacement = DisplacementHead(self.backbone.channels, factors) if displacement else None
        self.train(self.training)

    def train(self, mode: bool = True) -> "IRNet":
        """Switch modes; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, image: Tensor) -> Maps:
        """(N, 3, H, W) -> `Maps` with h = ceil(H / stride); gradients reach the heads only."""
        with torch.no_grad():
            stages = self.backbone(image)
        return Maps(self.edge(stages), None if self.displacement is None else self.displacement(stages))

    def grid(self, images: Tensor) -> tuple[int, int]:
        """(h, w) of the maps of images that are not padded."""
        return -(-images.shape[-2] // self.stride), -(-images.shape[-1] // self.stride)

    def pad(self, images: Tensor, side: int) -> Tensor:
        """Zeros to the right and below, up to `side`, or up to a multiple of the output stride where that is more.

        Group normalisation sees the zeros, so `side` is part of the result. The reference cuts images that are larger
        than `side` without a word (sfc.md, trap 13); here they are kept whole.

        Args:
            images: (N, 3, H, W).
            side: 512 in the reference.
        """
        step = self.backbone.output_stride
        extra = [max(side, -(-length // step) * step) - length for length in images.shape[-2:]]
        return F.pad(images, (0, extra[1], 0, extra[0]))

    def infer(self, images: Tensor, pad_to: int = 512) -> Prediction:
        """Edges of one image from the mean logit of the image and its mirror image (sfc.md 7.3).

        Args:
            images: (2, 3, H, W), the second the horizontal mirror image of the first; or (1, 3, H, W).
            pad_to: see `pad`.

        Returns:
            `Prediction` of size ceil(H / stride) x ceil(W / stride); the displacement is the first image's.
        """
        height, width = self.grid(images)
        edge, displacement = self(self.pad(images, pad_to))
        # cut first: the mirror image is padded on its own right side, which is the image's left one
        logits = wide(edge[:, :height, :width])
        mean = logits[0] if len(logits) == 1 else logits[0] / 2 + logits[1].flip(-1) / 2
        first = None if displacement is None else wide(displacement[0, :, :height, :width])
        return Prediction(mean.sigmoid(), first)
