"""The net of a fine-tuning: a backbone that learns, a head, perhaps an auxiliary head in training."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, cast

from torch import Tensor, nn

from frugalseg.errors import ConfigError
from frugalseg.nn.features import Backbone
from frugalseg.nn.pyramid import TrainableBackbone
from frugalseg.nn.units import Norm
from frugalseg.stages.finetune.heads import FCN, Linear, SemanticFPN
from frugalseg.stages.finetune.upernet import UperNet

Name = Literal["linear", "fcn", "upernet", "semantic-fpn"]
HEADS: dict[str, type[Linear] | type[FCN] | type[UperNet] | type[SemanticFPN]] = {
    "linear": Linear,
    "fcn": FCN,
    "upernet": UperNet,
    "semantic-fpn": SemanticFPN,
}
AUXILIARY = {"channels": 256, "convolutions": 1}
"""mmseg's auxiliary FCN head; it reads the third map."""


class FineTuneNet(nn.Module):
    """Backbone and head; all of it learns.

    Args:
        num_classes: K.
        backbone: which net.
        head: `linear` or `fcn` on its dense features, `upernet` or `semantic-fpn` on its pyramid.
        head_options: further arguments of the head.
        norm: kind of the normalisation in what is new.
        frozen_norm: batch normalisation of the backbone is a constant.
        auxiliary: whether there is a second head on the third map of the pyramid, for training alone.

    Raises:
        ConfigError: no such head or option, a backbone without a pyramid for a head that reads one, or an auxiliary
            head where there is no pyramid.
    """

    hot: ClassVar[tuple[str, ...]] = ("both",)
    """What a training step calls; see `callbacks.Compile`."""

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone,
        head: Name = "linear",
        head_options: dict[str, Any] | None = None,
        norm: Norm = "batch",
        frozen_norm: bool = False,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ConfigError(f"model.head is {head!r}; set it to one of {', '.join(HEADS)}")
        kind = HEADS[head]
        if auxiliary and not kind.reads_pyramid:
            raise ConfigError(f"model.auxiliary: head {head} has no pyramid to read; set it to 0")
        self.backbone = TrainableBackbone(backbone, kind.reads_pyramid, norm, frozen_norm)
        widths = self.backbone.widths
        try:
            make = cast(Callable[..., nn.Module], kind)
            self.head: nn.Module = make(widths, num_classes, norm, **(head_options or {}))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"model.head_options of {head}: {error}") from error
        self.auxiliary = FCN(widths[2:3], num_classes, norm, **AUXILIARY) if auxiliary else None

    def forward(self, image: Tensor) -> Tensor:
        """Logits on the finest map's grid.

        Args:
            image: (N, 3, H, W), H and W multiples of the backbone's `multiple`.

        Returns:
            (N, K, h, w).
        """
        logits: Tensor = self.head(self.backbone(image))
        return logits

    def both(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and those of the auxiliary head where there is one; arguments as of `forward`."""
        maps = self.backbone(image)
        return self.head(maps), None if self.auxiliary is None else self.auxiliary(maps[2:3])

    def new(self) -> list[nn.Module]:
        """Heads."""
        return [self.head, *([] if self.auxiliary is None else [self.auxiliary])]
