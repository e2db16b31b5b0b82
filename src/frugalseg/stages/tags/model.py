"""A ResNet with global average pooling and one linear layer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from frugalseg.nn.backbone import ResNetStages
from frugalseg.ops.precision import at_least_float32


class TagNet(nn.Module):
    """Image-level classifier whose backbone the papers' networks can load.

    Args:
        num_tags: number of outputs.
        backbone: a timm ResNet.
        strides: step of stem and layers; must equal those of the network that loads the weights, or the features meet
            objects at another scale.
        backbone_options: further arguments of the timm model.
    """

    def __init__(
        self,
        num_tags: int,
        backbone: str = "resnet50",
        strides: Sequence[int] = (4, 1, 2, 2, 2),
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = ResNetStages(
            backbone, strides, trained_from="stem", frozen_norm=False, options=backbone_options
        )
        self.head = nn.Linear(self.backbone.channels[-1], num_tags)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_tags) logits, at least float32: rounded to bfloat16, many scores would tie."""
        features = self.backbone(image).layer4
        with torch.autocast(image.device.type, enabled=False):
            pooled = at_least_float32(features).mean(dim=(-2, -1))
            return at_least_float32(self.head(pooled.to(self.head.weight.dtype)))
