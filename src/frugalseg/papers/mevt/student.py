"""A dense encoder with the three heads that self-supervision needs (mevt.md c.1)."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from frugalseg.papers.mevt.heads import Head, Prototypes
from frugalseg.papers.mevt.model import MEVT, Dense

PARTS = ("global", "prototype", "pixel")


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
        parts: which heads there are: `global`, `prototype`, `pixel`, and `region` on the cells of the last stage.
        masks: whether the backbone will be given masks.
    """

    def __init__(
        self, backbone: nn.Module, sizes: HeadSizes, parts: Collection[str] = PARTS, masks: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        width, token_width = int(backbone.width), int(backbone.token_width)  # type: ignore[arg-type]
        # a head without a loss would have no gradient, which DDP takes for a fault
        if "global" in parts:
            self.global_head = Head(token_width, sizes.global_hidden, sizes.outputs, sizes.norm)
            self.global_prototypes = Prototypes(sizes.outputs, sizes.global_prototypes)
        if "prototype" in parts:
            self.dense_head = Head(width, sizes.prototype_hidden, sizes.outputs, sizes.norm)
            self.dense_prototypes = Prototypes(sizes.outputs, sizes.dense_prototypes)
        if "pixel" in parts:
            self.pixel_head = Head(width, sizes.pixel_hidden, sizes.pixel_outputs, sizes.norm)
        if "region" in parts:
            self.region_head = Head(token_width, sizes.global_hidden, sizes.outputs, sizes.norm)
            self.region_prototypes = Prototypes(sizes.outputs, sizes.global_prototypes)
        freeze_idle(backbone, bool({"prototype", "pixel"} & set(parts)), bool({"global", "region"} & set(parts)), masks)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Dense:
        """What the backbone makes of images (N, 3, H, W); heads are applied to the points that a step chooses."""
        found: Dense = self.backbone(image) if mask is None else self.backbone(image, mask)
        return found

    def global_logits(self, token: Tensor) -> Tensor:
        """(N, C4) tokens -> (N, Kg) cosines."""
        found: Tensor = self.global_prototypes(self.global_head(token))
        return found

    def dense_logits(self, points: Tensor) -> Tensor:
        """(N, D) features of points -> (N, Kp) cosines."""
        found: Tensor = self.dense_prototypes(self.dense_head(points))
        return found

    def region_logits(self, cells: Tensor) -> Tensor:
        """(N, C4) cells of the last stage -> (N, Kg) cosines."""
        found: Tensor = self.region_prototypes(self.region_head(cells))
        return found


def freeze_idle(backbone: nn.Module, dense: bool, last: bool, masks: bool = False) -> None:
    """Say of those parts of MEVT that no loss reaches that they do not learn.

    Args:
        backbone: any.
        dense: whether a loss reads its dense features.
        last: whether one reads its token or its last stage.
        masks: whether it will be given masks.
    """
    if not isinstance(backbone, MEVT):
        return
    if backbone.encoder.mask_token is not None:
        backbone.encoder.mask_token.requires_grad_(masks)
    if backbone.decoder is not None:
        backbone.decoder.requires_grad_(dense)
    elif not last:
        # the dense feature is F3, and nothing looks at what comes after it
        backbone.encoder.stages[3].requires_grad_(False)
