"""A dense encoder with the three heads that self-supervision needs (mevt.md c.1)."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from frugalseg.papers.mevt.heads import Head, Prototypes
from frugalseg.papers.mevt.model import Dense


class HeadSizes(NamedTuple):
    """Hidden widths and outputs of the heads, and numbers of prototypes.

    Attributes:
        global_hidden: widths of the global head's hidden linears.
        prototype_hidden: of the prototype head.
        pixel_hidden: of the pixel head.
        outputs: d of the global and of the prototype head.
        pixel_outputs: d of the pixel head.
        global_prototypes: Kg.
        dense_prototypes: Kp.
        norm: BatchNorm in the heads; for batches of 64 and fewer.
    """

    global_hidden: Sequence[int] = (2048, 2048)
    prototype_hidden: Sequence[int] = (1024,)
    pixel_hidden: Sequence[int] = (512,)
    outputs: int = 256
    pixel_outputs: int = 128
    global_prototypes: int = 8192
    dense_prototypes: int = 1024
    norm: bool = False


TINY = HeadSizes((256,), (256,), (128,), 64, 64, 128, 64, True)
"""Of a net on a CPU (mevt.md c.1)."""


class Student(nn.Module):
    """Backbone and heads; a teacher has the same parts.

    Args:
        backbone: gives `Dense`; has `width` D of the dense features and `token_width` C4.
        sizes: of the heads.
    """

    def __init__(self, backbone: nn.Module, sizes: HeadSizes) -> None:
        super().__init__()
        self.backbone = backbone
        width, token_width = int(backbone.width), int(backbone.token_width)  # type: ignore[arg-type]
        self.global_head = Head(token_width, sizes.global_hidden, sizes.outputs, sizes.norm)
        self.global_prototypes = Prototypes(sizes.outputs, sizes.global_prototypes)
        self.dense_head = Head(width, sizes.prototype_hidden, sizes.outputs, sizes.norm)
        self.dense_prototypes = Prototypes(sizes.outputs, sizes.dense_prototypes)
        self.pixel_head = Head(width, sizes.pixel_hidden, sizes.pixel_outputs, sizes.norm)

    def forward(self, image: Tensor) -> Dense:
        """What the backbone makes of images (N, 3, H, W); heads are applied to the points that a step chooses."""
        found: Dense = self.backbone(image)
        return found

    def global_logits(self, token: Tensor) -> Tensor:
        """(N, C4) tokens -> (N, Kg) cosines."""
        found: Tensor = self.global_prototypes(self.global_head(token))
        return found

    def dense_logits(self, points: Tensor) -> Tensor:
        """(N, D) features of points -> (N, Kp) cosines."""
        found: Tensor = self.dense_prototypes(self.dense_head(points))
        return found
