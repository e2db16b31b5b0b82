"""Backbone and head together: logits on a coarse grid."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from frugalseg.ops.cam import resize
from frugalseg.stages.deeplab.backbones import build_backbone
from frugalseg.stages.deeplab.heads import build_head


class DeepLabNet(nn.Module):
    """A segmentation net of the DeepLab family.

    Attributes:
        stride: pixels per cell of the logits.
        align: pixels per cell of the coarsest grid inside; tiles must begin at its multiples.

    Args:
        num_classes: K, background included.
        backbone: `resnet38d`, or a name of timm.
        head: `largefov`, `v2` or `v3plus`.
        output_stride: pixels per cell of the last features.
        strides: five steps instead of an output stride, see `StridedBackbone`.
        frozen_norm: normalisation of the backbone is a constant.
        backbone_options: further arguments of the backbone.
        head_options: further arguments of the head.

    Raises:
        ValueError: no such net, or a setting that it does not take.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        head: str = "v2",
        output_stride: int = 8,
        strides: Sequence[int] | None = None,
        frozen_norm: bool = True,
        backbone_options: dict[str, Any] | None = None,
        head_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, output_stride, strides, frozen_norm, backbone_options)
        channels, steps = self.backbone.channels, self.backbone.strides
        self.head = build_head(head, channels, steps, num_classes, head_options)
        self.stride = steps[0] if self.head.uses_low else steps[1]
        self.align = max(steps)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits.

        Args:
            image: (N, 3, H, W), normalised.

        Returns:
            (N, K, ceil(H / stride), ceil(W / stride)).
        """
        logits: Tensor = self.head(self.backbone(image))
        height, width = image.shape[-2:]
        # the same for every backbone, so that tiles fit together; ResNets have this size anyway. Rounded up without a
        # minus sign: ONNX divides towards 0
        more = self.stride - 1
        return resize(logits, ((height + more) // self.stride, (width + more) // self.stride))
