"""AffinityNet: a backbone whose last three feature maps are embedded so that distances are affinities (cti.md 8.2).

Ahn and Kwak, CVPR 2018. Torch only.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frugalseg.nn.backbone import ResNetStages
from frugalseg.nn.resnet38d import ResNet38
from frugalseg.ops.cam import resize
from frugalseg.ops.random_walk import feature_affinity, inner_pairs


class AffinityHead(nn.Module):
    """1x1 convolutions of three feature maps, put together and mixed by a fourth, all with ELU and without bias.

    Maps on finer grids are brought to that of the last one, bilinearly and after their convolution. In ResNet-38 all
    three share a grid already.

    Args:
        channels: depth of the three maps.
        embedding: depth to which each is brought; the affinity compares as many numbers as they have together.
    """

    def __init__(self, channels: Sequence[int], embedding: Sequence[int] = (64, 128, 256)) -> None:
        super().__init__()
        self.f8_3, self.f8_4, self.f8_5 = (
            nn.Conv2d(i, o, 1, bias=False) for i, o in zip(channels, embedding, strict=True)
        )
        self.f9 = nn.Conv2d(sum(embedding), sum(embedding), 1, bias=False)
        for layer in (self.f8_3, self.f8_4, self.f8_5):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Three maps (N, D_i, h_i, w_i) -> (N, sum of embedding, h, w) on the grid of the last one."""
        grid = (maps[-1].shape[-2], maps[-1].shape[-1])
        layers = (self.f8_3, self.f8_4, self.f8_5)
        levels = [F.elu(resize(layer(x), grid)) for layer, x in zip(layers, maps, strict=True)]
        return F.elu(self.f9(torch.cat(levels, dim=1)))


def _backbone(
    name: str, strides: Sequence[int], trained_from: str | None, options: dict[str, Any]
) -> ResNet38 | ResNetStages:
    try:
        if name == "resnet38d":
            return ResNet38(trained_from or "b3", **options)
        return ResNetStages(name, strides, trained_from or "layer2", options=options)
    except TypeError as error:
        raise ValueError(f"backbone_options of {name}: {error}") from error


class AffinityNet(nn.Module):
    """Backbone and head.

    Args:
        backbone: `resnet38d`, or a timm ResNet, whose layer2 to layer4 stand for conv4 to conv6.
        strides: of a timm ResNet's stem and layers, see `ResNetStages`.
        trained_from: first stage that learns, by the backbone's names; null takes b3 of ResNet-38 (published), layer2
            of others.
        embedding: depths of the head.
        radius: pairs are closer than that, in cells.
        border_pairs: take pairs from every cell; the reference leaves those out whose first cell has not all its
            partners in the map, in training and in the walk.
        backbone_options: further arguments of `ResNet38` or of the timm model.

    Raises:
        ValueError: a setting that the backbone does not take.
    """

    def __init__(
        self,
        backbone: str = "resnet38d",
        strides: Sequence[int] = (4, 1, 2, 1, 1),
        trained_from: str | None = None,
        embedding: Sequence[int] = (64, 128, 256),
        radius: int = 5,
        border_pairs: bool = False,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = _backbone(backbone, strides, trained_from, backbone_options or {})
        self.head = AffinityHead(self.backbone.channels[-3:], embedding)
        self.stride, self.radius, self.border_pairs = self.backbone.output_stride, radius, border_pairs

    def embed(self, image: Tensor) -> Tensor:
        """Embed an image of any size, padded with zeros (the mean colour) below and to the right as the reference does.

        Args:
            image: (N, 3, H, W) normalised.

        Returns:
            (N, D, h, w), h = ceil(H / stride).
        """
        bottom, right = (-size % self.stride for size in image.shape[-2:])
        maps = self.backbone(F.pad(image, (0, right, 0, bottom)))
        embedded: Tensor = self.head(maps[-3:])
        return embedded

    def forward(self, image: Tensor) -> Tensor:
        """Affinities of near cells, in float32 or what is wider.

        Args:
            image: (N, 3, H, W) normalised.

        Returns:
            (N, P, h, w) in [0, 1]; 0 where there is no pair (see `border_pairs`).
        """
        embedded = self.embed(image)
        with torch.autocast(image.device.type, enabled=False):
            affinity = feature_affinity(embedded, self.radius)
        return affinity if self.border_pairs else inner_pairs(affinity)
